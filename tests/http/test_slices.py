from __future__ import annotations

import io
import json
import tempfile
from urllib.parse import quote

import blosc2
import numpy as np
import pytest
from starlette.requests import Request

from caterva2.frame.write import write_array
from caterva2.http import bodies, slices, spool
from caterva2.model import parts
from caterva2.source import slices as source

ARRAY = np.arange(60 * 50, dtype=np.int32).reshape(60, 50)
RECORDS = np.array([(1, 2.5, "é"), (3, -1.0, "xy")], dtype=[("a", "i4"), ("b", "f8"), ("c", "U3")])
NPY = {"Accept": "application/x-npy"}


def npy(body: bytes) -> np.ndarray:
    return np.load(io.BytesIO(body), allow_pickle=False)


TEXTS = [
    ("", ()),
    ("5", (5,)),
    ("-1, 3", (-1, 3)),
    ("10:20, 5", (slice(10, 20), 5)),
    ("::7, ::-3", (slice(None, None, 7), slice(None, None, -3))),
    ("..., 0", (..., 0)),
    ("60:70", (slice(60, 70),)),
    (" 1 : 2 ,", (slice(1, 2),)),
]


@pytest.mark.parametrize(("text", "key"), TEXTS)
async def test_slices_in_every_form(running, text, key) -> None:
    target = f"/api/fetch/foo/dir/a.b2nd?slice_={quote(text)}"
    expected = ARRAY[key]
    status, headers, body = await running.get(target, headers=NPY)
    assert status == 200
    assert np.array_equal(npy(body), expected)
    assert npy(body).shape == expected.shape
    status, headers, body = await running.get(target, headers={"Accept": "application/vnd.caterva2.raw"})
    assert json.loads(headers["X-Caterva2-Shape"]) == list(expected.shape)
    assert body == np.ascontiguousarray(expected).tobytes()
    status, headers, body = await running.get(target)
    frame = blosc2.ndarray_from_cframe(body)
    assert frame.shape == expected.shape
    assert np.array_equal(frame[()] if frame.ndim == 0 else frame[:], expected)


@pytest.fixture
def all_large(monkeypatch):
    """Treat the arrays here as those of many megabytes are."""
    for module, name, nbytes in (
        (slices, "LARGE_BYTES", 7),
        (slices, "PART_BYTES", 600),
        (slices, "BODY_PIECE_BYTES", 333),
        (bodies, "WHOLE_BYTES", 0),
        (spool, "PIECE_BYTES", 100),
        (source, "SLAB_BYTES", 900),
        (parts, "ANSWER_CHUNK_BYTES", 300),
    ):
        monkeypatch.setattr(module, name, nbytes)


@pytest.mark.parametrize(("text", "key"), TEXTS)
@pytest.mark.usefixtures("all_large")
async def test_large_slices_in_every_form(running, text, key) -> None:
    await test_slices_in_every_form(running, text, key)


def select_key(text):
    """Return a text of integers and slices as a key of numpy."""
    parts = [[int(bound) if bound else None for bound in part.split(":")] for part in text.split(",")]
    return tuple(part[0] if len(part) == 1 else slice(*part) for part in parts)


ALIGNED = [("", (), 0), ("20:60, 25:50", (slice(20, 60), slice(25, 50)), 3), ("40:", (slice(40, None),), 4)]


@pytest.mark.parametrize(("text", "key", "first"), ALIGNED)
async def test_large_frames_of_whole_chunks_have_them_as_they_are_stored(
    running, all_large, monkeypatch, text, key, first
) -> None:
    monkeypatch.setattr(slices, "PART_BYTES", 1 << 20)
    _, _, body = await running.get(f"/api/fetch/foo/dir/a.b2nd?slice_={quote(text)}")
    frame = blosc2.ndarray_from_cframe(body)
    assert np.array_equal(frame[:], ARRAY[key])
    _, _, stored = await running.get(f"/api/chunk/foo/dir/a.b2nd?nchunk={first}")
    assert frame.schunk.get_chunk(0) == stored
    for other in ("1:60", "::-1", "20:40:2", "0, 25:50", "20:39"):
        _, _, body = await running.get(f"/api/fetch/foo/dir/a.b2nd?slice_={quote(other)}")
        expected = ARRAY[select_key(other)]
        assert np.array_equal(blosc2.ndarray_from_cframe(body)[:], expected)


async def test_chunks_without_bytes_are_told_as_they_are_stored(
    running, files, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(slices, "LARGE_BYTES", 7)
    array = np.zeros((90, 60), "f4")
    array[31:50, 5] = 7
    await files.add(write_array(tmp_path / "h.b2nd", array, chunks=(30, 20), blocks=(10, 10)), "h.b2nd")
    _, _, body = await running.get("/api/fetch/foo/h.b2nd?slice_=30:90")
    assert np.array_equal(blosc2.ndarray_from_cframe(body)[:], array[30:])


@pytest.mark.usefixtures("all_large")
async def test_large_fields_points_and_items(running) -> None:
    for accept, read in ((NPY, npy), ({}, lambda body: blosc2.ndarray_from_cframe(body)[:])):
        for name in "abc":
            _, _, body = await running.get(f"/api/fetch/foo/records.b2nd?field={name}", headers=accept)
            assert np.array_equal(read(body), RECORDS[name])
        _, _, body = await running.get("/api/fetch/foo/dir/a.b2nd?indices=[[3,1,59],null]", headers=accept)
        assert np.array_equal(read(body), ARRAY[[3, 1, 59]])
    _, _, body = await running.get("/api/fetch/foo/f.b2frame?slice_=3:900")
    assert blosc2.schunk_from_cframe(body)[:] == (b"0123456789" * 100)[3:900]


@pytest.mark.usefixtures("all_large")
async def test_where_no_temporary_file_can_be_made_what_needs_one_is_refused(
    running, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    status, problem = await running.problem("/api/fetch/foo/dir/a.b2nd")
    assert status == 503
    assert str(tmp_path / "gone") in problem["detail"]
    status, _, body = await running.get("/api/fetch/foo/dir/a.b2nd", headers=NPY)
    assert np.array_equal(npy(body), ARRAY)


async def test_nothing_is_left_in_the_directory_of_temporary_files(
    running, all_large, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    _, _, body = await running.get("/api/fetch/foo/dir/a.b2nd")
    assert len(body) > 1000
    assert set(tmp_path.iterdir()) == before


async def test_a_scalar_stays_one(running) -> None:
    _, _, body = await running.get("/api/fetch/foo/scalar.b2nd", headers=NPY)
    assert (npy(body).shape, npy(body)[()]) == ((), 2.5)


NONSENSE = [
    "slice_=1,2,3",
    "slice_=60",
    "slice_=-61",
    "slice_=::0",
    "slice_=a",
    "slice_=1:2:3:4",
    "slice_=99999999999999999999999",
    "slice_=[",
    "field=a",
    "indices={",
    "indices=[[99]]",
    "indices=[[-61]]",
    "indices=[1.5]",
    "indices=[true]",
    'indices=["x"]',
    "indices=[[0],[0],[0]]",
    "indices=[[[[[[0]]]],1]]",
    "indices=[0]&slice_=1",
    "indices=" + "[" * 5000,
]


async def test_nonsense_is_a_400(running) -> None:
    for query in NONSENSE:
        status, problem = await running.problem(f"/api/fetch/foo/dir/a.b2nd?{quote(query, safe='=&')}")
        assert status == 400, (query, problem)


async def test_points(running) -> None:
    for key in ([[3, 59, 3], [0, 49, 1]], [[1, -1], None], [5, [0, 2]], [[[0, 1], [2, 3]], "4:6"]):
        target = f"/api/fetch/foo/dir/a.b2nd?indices={quote(json.dumps(key))}"
        _, _, body = await running.get(target, headers=NPY)
        parts = tuple(slice(None) if k is None else slice(4, 6) if isinstance(k, str) else k for k in key)
        assert np.array_equal(npy(body), ARRAY[parts]), key
        status, _, posted = await running.get(
            "/api/fetch/foo/dir/a.b2nd", "POST", json={"indices": key}, headers=NPY
        )
        assert (status, posted) == (200, body)


async def test_fields(running) -> None:
    _, _, body = await running.get("/api/fetch/foo/records.b2nd?field=b", headers=NPY)
    assert np.array_equal(npy(body), RECORDS["b"])
    _, _, body = await running.get("/api/fetch/foo/records.b2nd?slice_=0&field=c", headers=NPY)
    assert npy(body)[()] == "é"
    _, _, body = await running.get("/api/fetch/foo/records.b2nd", headers=NPY)
    assert np.array_equal(npy(body), RECORDS)
    status, problem = await running.problem("/api/fetch/foo/records.b2nd?field=z")
    assert status == 400
    assert "a, b, c" in problem["detail"]


@pytest.mark.parametrize("unknown", ["filter=a%20>%201", "slice=0:1", "slice_=0:1&sortby=a", "Field=a"])
async def test_a_query_with_unknown_members_is_refused(running, unknown) -> None:
    status, problem = await running.problem(f"/api/fetch/foo/records.b2nd?{unknown}")
    assert (status, "not permitted" in problem["detail"]) == (400, True)


async def test_a_body_with_unknown_members_is_refused(running) -> None:
    for body in ({"slice": "1"}, {"slice_": 1}, [1], "x"):
        assert (await running.problem("/api/fetch/foo/dir/a.b2nd", "POST", json=body))[0] == 400
    assert (await running.problem("/api/fetch/foo/dir/a.b2nd", "POST", data=b"\xff{"))[0] == 400
    assert (await running.problem("/api/fetch/foo/dir/a.b2nd", "POST", data=io.BytesIO(b"x" * (2 << 20))))[
        0
    ] == 413


async def test_what_is_too_large_is_refused_before_it_is_read(running, files) -> None:
    status, problem = await running.problem("/api/fetch/foo/zeros.b2nd")
    assert (status, problem["nbytes"]) == (413, 4000 * 4000 * 8)
    assert (await running.get("/api/fetch/foo/zeros.b2nd?slice_=3999", headers=NPY))[0] == 200


async def test_an_empty_slice_reads_nothing(running, files) -> None:
    from caterva2.model.path import DatasetPath

    source = files.sources[DatasetPath("foo", "dir/a.b2nd")]
    _, _, body = await running.get("/api/fetch/foo/dir/a.b2nd?slice_=0:0,0:0", headers=NPY)
    assert npy(body).shape == (0, 0)
    assert (source.pages_made, source.extents_read) == (0, 0)


async def test_frames_by_items(running) -> None:
    _, _, body = await running.get("/api/fetch/foo/f.b2frame?slice_=10:25")
    assert blosc2.schunk_from_cframe(body)[:] == b"012345678901234"
    _, _, body = await running.get("/api/fetch/foo/f.b2frame")
    assert blosc2.schunk_from_cframe(body)[:] == b"0123456789" * 100
    assert (await running.problem("/api/fetch/foo/f.b2frame?slice_=::2"))[0] == 400
    assert (await running.problem("/api/fetch/foo/f.b2frame?field=x"))[0] == 400


async def test_files_by_bytes(running) -> None:
    target = "/api/fetch/foo/text%20%C3%A9%20%23%3F%25.bin"
    assert (await running.get(f"{target}?slice_=250:260"))[2] == bytes([*range(250, 256), 0, 1, 2, 3])
    assert len((await running.get(target))[2]) == 307_200


async def test_a_range_asks_for_stored_bytes(running, files) -> None:
    _, _, stored = await running.get("/data/foo/dir/a.b2nd")
    status, _, body = await running.get("/api/fetch/foo/dir/a.b2nd", headers={"Range": "bytes=2-9"})
    assert (status, body) == (206, stored[2:10])


async def test_chunks(running) -> None:
    for number in range(6):
        status, _, chunk = await running.get(f"/api/chunk/foo/dir/a.b2nd?nchunk={number}")
        assert status == 200
        assert len(blosc2.decompress2(chunk)) == 20 * 25 * 4
    assert (
        np.frombuffer(blosc2.decompress2((await running.get("/api/chunk/foo/zeros.b2nd?nchunk=3"))[2])).any()
        == np.False_
    )
    for number in ("6", "-1"):
        assert (await running.problem(f"/api/chunk/foo/dir/a.b2nd?nchunk={number}"))[0] == 404
    for number in ("", "x", "1.5"):
        assert (await running.problem(f"/api/chunk/foo/dir/a.b2nd?nchunk={number}"))[0] == 400
    assert (await running.problem("/api/chunk/foo/empty?nchunk=0"))[0] == 404


@pytest.mark.parametrize(
    ("client", "server", "headers", "near"),
    [
        (("10.0.0.1", 1), ("10.0.0.1", 2), {}, True),
        (("10.0.0.2", 1), ("10.0.0.1", 2), {}, False),
        (("127.0.0.1", 1), ("127.0.0.1", 2), {"X-Forwarded-For": "10.0.0.2"}, False),
        (("127.0.0.1", 1), ("127.0.0.1", 2), {"Via": "1.1 proxy"}, False),
        (None, None, {}, False),
    ],
)
def test_who_comes_through_a_proxy_is_not_on_this_machine(client, server, headers, near) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "client": client, "server": server, "headers": raw}
    assert slices._is_near(Request(scope)) is near
