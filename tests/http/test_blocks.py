"""``/api/fetch`` as blocks as stored, over HTTP."""

from __future__ import annotations

import asyncio
import io
from urllib.parse import quote

import blosc2
import numpy as np
import pytest

from caterva2.client.blocks import Decoders, Layout, read_blocks
from caterva2.frame.geometry import dtype_of, grid_of
from caterva2.frame.write import write_array
from caterva2.http import bodies
from caterva2.http.negotiation import BLOCKS_TYPE
from caterva2.http.slices import VARY
from caterva2.model.selection import parse_selection
from caterva2.source import blocks as source

ACCEPT = {"Accept": f"{BLOCKS_TYPE}, application/x-npy;q=0.5"}
RNG = np.random.default_rng(2)
WALK = np.cumsum(RNG.integers(-3, 4, (400, 300)), axis=0)

ARRAYS = {
    "zstd": (WALK, {"codec": blosc2.Codec.ZSTD}),
    "lz4": (WALK.astype("f4"), {"codec": blosc2.Codec.LZ4}),
    "blosclz": (WALK.astype("i2"), {"codec": blosc2.Codec.BLOSCLZ}),
    "dict": (WALK.astype("u4"), {"use_dict": True}),
    "split": (WALK.astype("f8"), {"splitmode": blosc2.SplitMode.ALWAYS_SPLIT}),
    "not compressed": (RNG.integers(0, 255, (400, 300), np.uint8), {"clevel": 0}),
    "delta": (WALK, {"filters": [blosc2.Filter.DELTA], "filters_meta": [0]}),
    "zeros": (np.zeros((400, 300), "c8"), {}),
    "nan": (np.full((400, 300), np.nan, "f4"), {}),
    "records": (WALK.astype("i4").view([("a", "i2"), ("b", "S2")]), {}),
}
TEXTS = ["", "5", "-1, 3", "10:200, 5", "::7, ::-3", "..., 0", "100:200, 50:250", "399, 299"]


class Stream(io.BytesIO):
    """An answer as the client sees it."""

    def read_exactly(self, size: int) -> bytes:
        data = self.read(size)
        assert len(data) == size
        return data

    def read_into(self, target: memoryview) -> None:
        target[:] = self.read_exactly(len(target))


def result_of(head, text: str, body: bytes) -> np.ndarray:
    selection = parse_selection(text, head.shape)
    grid = grid_of(head)
    plain = parse_selection(",".join(f"{a.start}:{a.stop}:{a.step}" for a in selection.axes), head.shape)
    out = np.empty(selection.counts, dtype_of(head))
    read_blocks(Stream(body), Layout(grid, out.dtype), plain, out, Decoders(), alone=True)
    order = tuple(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes)
    return out[order].reshape(selection.shape)


@pytest.fixture
def large(monkeypatch):
    """Treat the arrays here as those of many megabytes are."""
    for module, name, value in (
        (source, "SMALL_BYTES", 100),
        (source, "STORED_PER_RESULT", 1 << 20),
        (source, "GROUP_BYTES", 20_000),
        (source, "PIECE_BYTES", 3_000),
        (bodies, "WHOLE_BYTES", 0),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("name", ARRAYS)
async def test_every_answer_is_what_numpy_gives(running, files, tmp_path, name) -> None:
    truth, cparams = ARRAYS[name]
    array = blosc2.asarray(truth, chunks=(150, 130), blocks=(40, 50), cparams=cparams)
    (tmp_path / "x.b2nd").write_bytes(array.to_cframe())
    head = await files.add(tmp_path / "x.b2nd", "x.b2nd")
    forms = set()
    for text in TEXTS:
        status, headers, body = await running.get(
            f"/api/fetch/foo/x.b2nd?slice_={quote(text)}", headers=ACCEPT
        )
        assert status == 200
        assert int(headers["Content-Length"]) == len(body)
        assert headers["ETag"] == f'"{head.etag}"'
        assert headers["Vary"] == VARY
        forms.add(headers["Content-Type"])
        want = truth[eval(f"numpy.s_[{text or '...'}]", {"numpy": np})]
        if headers["Content-Type"] == BLOCKS_TYPE:
            got = result_of(head, text, body)
        else:
            got = np.load(io.BytesIO(body))
        assert got.shape == want.shape
        assert got.tobytes() == np.ascontiguousarray(want).tobytes()
    assert forms == {"application/x-npy"} if name == "delta" else BLOCKS_TYPE in forms


@pytest.mark.parametrize("name", ["zstd", "dict", "zeros", "not compressed"])
@pytest.mark.usefixtures("large")
async def test_so_is_every_large_one(running, files, tmp_path, name) -> None:
    await test_every_answer_is_what_numpy_gives(running, files, tmp_path, name)


async def test_what_has_no_blocks_comes_in_another_form(running) -> None:
    for target in (
        "/api/fetch/foo/records.b2nd?field=a",
        "/api/fetch/foo/dir/a.b2nd?indices=[[1,2],[3,4]]",
        "/api/fetch/foo/dir/a.b2nd?slice_=0:0",
    ):
        status, headers, _ = await running.get(target, headers=ACCEPT)
        assert (status, headers["Content-Type"]) == (200, "application/x-npy")
    status, headers, _ = await running.get("/api/fetch/foo/f.b2frame?slice_=0:5", headers=ACCEPT)
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")


async def test_nothing_is_sent_that_is_too_large(running) -> None:
    assert (await running.problem("/api/fetch/foo/zeros.b2nd", headers=ACCEPT))[0] == 413


async def test_a_version_that_is_gone_is_not_sent(running, files, tmp_path) -> None:
    old = await files.add(write_array(tmp_path / "v.b2nd", WALK), "v.b2nd")
    await files.add(write_array(tmp_path / "v.b2nd", WALK + 1), "v.b2nd", generation=2)
    target = "/api/fetch/foo/v.b2nd?slice_=5"
    status, problem = await running.problem(target, headers=ACCEPT | {"If-Match": f'"{old.etag}"'})
    assert (status, problem["wanted_etag"]) == (412, old.etag)
    assert (await running.get(target, headers=ACCEPT | {"If-None-Match": "*"}))[0] == 304


@pytest.mark.usefixtures("large")
async def test_a_client_that_leaves_gives_its_memory_back(running, files, tmp_path) -> None:
    files.reader._limit_bytes = 1 << 30
    noise = RNG.integers(0, 255, (4000, 2000), np.uint8)
    await files.add(write_array(tmp_path / "n.b2nd", noise, chunks=(400, 500), blocks=(40, 50)), "n.b2nd")
    async with running.session.get(f"{running.url}/api/fetch/foo/n.b2nd", headers=ACCEPT) as response:
        await response.content.readexactly(5000)
        response.close()
    async with asyncio.timeout(10):
        while files.reader.budget.granted_bytes:
            await asyncio.sleep(0.01)
