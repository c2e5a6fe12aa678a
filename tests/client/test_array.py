"""Reading arrays through real services: the same as numpy, of one version, in parts."""

from __future__ import annotations

import numpy as np
import pytest

import caterva2.client.array as module
from caterva2.client import Array
from caterva2.errors import Changed, InvalidSelection
from caterva2.frame.write import write_array

MASK = np.random.default_rng(5).random((60, 50)) < 0.1

KEYS = [
    ...,
    (),
    0,
    -1,
    (3, 4),
    np.int64(7),
    slice(None, None, -1),
    slice(50, 3, -7),
    (slice(5, 33, 4), -2),
    (..., slice(10, 20)),
    (slice(0, 0), slice(0, 0)),
    (slice(100, 200),),
    (slice(None), slice(None, None, -3)),
    ([0, 5, -1], [1, 2, 3]),
    ([0, 5, -1],),
    ([[0], [5]], [1, 2, 3]),
    (..., [7, 8]),
    ([3, 4], slice(2, 30, 9)),
    (5, np.array([1, 1, 0])),
    np.ix_([1, 40, 59], [0, 49]),
    MASK,
    MASK[:, 0],
    (MASK[:, 0], ...),
    (..., MASK[0]),
    (slice(3, 9), MASK[0]),
    (MASK[:, 0], 4),
    (7, MASK[0]),
    (MASK[:, 0], slice(None, None, -3)),
    np.ix_(MASK[:, 0], MASK[0]),
    np.zeros((60, 50), bool),
    np.ones((60, 50), bool),
    [True, *[False] * 58, True],
    ([],),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_part_is_what_numpy_gives(client, truths, key) -> None:
    truth = truths["ints.b2nd"][key]
    got = client["foo/ints.b2nd"][key]
    assert np.array_equal(got, truth)
    assert (np.shape(got), got.dtype, type(got)) == (np.shape(truth), truth.dtype, type(truth))


def test_every_dtype_comes_as_it_is(client, truths) -> None:
    for name, truth in truths.items():
        array = client[f"foo/{name}"]
        assert (array.shape, array.ndim, array.size) == (truth.shape, truth.ndim, truth.size)
        assert (array.dtype, array.nbytes) == (truth.dtype, truth.nbytes)
        assert array[...].tobytes() == truth.tobytes(), name
        assert array.attrs == {"units": "K"}


def test_arrays_without_dimensions(client) -> None:
    scalar = client["foo/scalar.b2nd"]
    assert scalar[()] == np.float32(2.5)
    assert type(scalar[()]) is np.float32
    assert (scalar[...].shape, float(scalar[...])) == ((), 2.5)
    with pytest.raises(TypeError):
        len(scalar)
    with pytest.raises(TypeError):
        iter(scalar).__next__()
    with pytest.raises(InvalidSelection):
        scalar[0]


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ((None, 0), "newaxis"),
        (60, "out of bounds"),
        ((0, 0, 0), "too many"),
        ([True] * 59, "mask"),
        (np.zeros((60, 51), bool), "mask"),
        (np.zeros((60, 50, 2), bool), "mask"),
        ((slice(None), [True] * 60), "mask"),
        (True, "bool"),
        ([0.5], "float"),
        ("field", "no field"),
        (slice(None, None, 0), "zero"),
        ([0, 60], "out of bounds"),
        ((..., ...), "ellipsis"),
        (([1], None), "None"),
        ([[1], [2, 3]], "inhomogeneous"),
    ],
    ids=str,
)
def test_what_selects_nothing_is_refused_with_its_reason(client, key, word) -> None:
    with pytest.raises(InvalidSelection, match=word):
        client["foo/ints.b2nd"][key]


def test_it_is_an_array_to_numpy(client, truths) -> None:
    array, truth = client["foo/ints.b2nd"], truths["ints.b2nd"]
    assert np.array_equal(np.asarray(array), truth)
    assert np.asarray(array, np.float64).dtype == np.float64
    assert np.sum(array) == truth.sum()
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, copy=False)
    assert len(array) == 60
    assert np.array_equal(np.stack(list(array)), truth)
    assert repr(array) == "<Array foo/ints.b2nd: (60, 50) int32>"
    assert array.chunks == (20, 25)
    assert 0 < array.cbytes < array.nbytes + 1000


def test_an_empty_selection_costs_no_request(client) -> None:
    array = client["foo/ints.b2nd"]
    client.close()
    calls = []
    array._transport.open = lambda *args, **options: calls.append(args)
    assert array[0:0, 0:0].shape == (0, 0)
    assert calls == []


def test_opening_moves_no_data(running, client) -> None:
    before = running.cluster.subscriber.origins.stats.bytes
    array = client["foo/zeros.b2nd"]
    assert (array.shape, array.dtype) == ((300, 300), np.float64)
    assert running.cluster.subscriber.origins.stats.bytes - before < 10_000


@pytest.mark.parametrize("part_bytes", [64, 400, 3000])
def test_a_large_read_is_made_of_parts(client, truths, monkeypatch, part_bytes) -> None:
    monkeypatch.setattr(module, "PART_BYTES", part_bytes)
    sent = []
    array = client["foo/cube.b2nd"]
    opened = array._transport.open
    array._transport.open = lambda request, **options: sent.append(request) or opened(request, **options)
    for key in (..., (slice(None, None, -2), 3), (slice(1, 11), slice(None), slice(13, None, -5)), (7, 8, 9)):
        assert np.array_equal(array[key], truths["cube.b2nd"][key])
    assert len(sent) > 4
    assert {request.headers["If-Match"] for request in sent} == {f'"{array.etag}"'}


def test_a_service_with_smaller_answers_is_read_in_smaller_parts(running, client, truths) -> None:
    reader = running.cluster.subscriber.reader
    before = reader._limit_bytes
    reader._limit_bytes = 1000
    try:
        assert np.array_equal(client["foo/cube.b2nd"][...], truths["cube.b2nd"])
    finally:
        reader._limit_bytes = before


def test_a_read_is_of_the_version_that_was_opened(running, client, root) -> None:
    write_array(root / "changing.b2nd", np.arange(1000.0), chunks=[100])
    catalogue = running.cluster.subscriber.catalogue
    running.wait_for(lambda: "changing.b2nd" in catalogue.roots["foo"].entries)
    array = client["foo/changing.b2nd"]
    assert array[:100].sum() == 4950
    assert array.refresh() is False
    write_array(root / "changing.b2nd", np.ones(2000, np.float32), chunks=[50])
    running.wait_for(lambda: catalogue.roots["foo"].entries["changing.b2nd"].etag != array.etag)
    old, generation = array.etag, array.generation
    for key in (slice(500, 600), [1, 700]):
        with pytest.raises(Changed) as changed:
            array[key]
        current = catalogue.roots["foo"].entries["changing.b2nd"].etag
        error = changed.value
        assert (error.path, error.wanted_etag, error.current_etag) == (array.path, old, current)
        assert old in str(error)
        assert current in str(error)
    assert array[:100].sum() == 4950  # which is still here
    assert (array.etag, array.shape) == (old, (1000,))
    assert array.refresh() is True
    assert (array.etag, array.shape, array.chunks, array.dtype) == (current, (2000,), (50,), np.float32)
    assert array.generation > generation
    assert array[:].sum() == 2000


def test_a_refresh_leaves_the_reads_under_way_alone(running, client, root, monkeypatch) -> None:
    """A read in parts that has begun goes on with the version it began with, or fails."""
    monkeypatch.setattr(module, "PART_BYTES", 800)
    monkeypatch.setattr(module, "PARALLEL", 1)
    write_array(root / "refreshed.b2nd", np.arange(2000.0), chunks=[100])
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: "refreshed.b2nd" in entries)
    array = client["foo/refreshed.b2nd"]
    read_part, old = array._read_part, array.etag

    def refreshed_meanwhile(part, *rest, **alone) -> None:
        if part.target[0].start == 1000:
            write_array(root / "refreshed.b2nd", np.ones(2000), chunks=[100])
            running.wait_for(lambda: entries["refreshed.b2nd"].etag != old)
            assert array.refresh()
        read_part(part, *rest, **alone)

    array._read_part = refreshed_meanwhile
    with pytest.raises(Changed) as changed:
        array[:]
    assert (changed.value.wanted_etag, changed.value.current_etag) == (old, array.etag)
    del array._read_part
    assert array[:].sum() == 2000


def test_a_read_in_parts_never_mixes_versions(running, client, root, monkeypatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 800)
    write_array(root / "mixed.b2nd", np.arange(2000.0), chunks=[100])
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: "mixed.b2nd" in entries)
    array = client["foo/mixed.b2nd"]
    read_part = array._read_part

    def replaced_meanwhile(part, *rest, **alone) -> None:
        if part.target[0].start == 1000:
            write_array(root / "mixed.b2nd", np.ones(2000), chunks=[100])
            running.wait_for(lambda: entries["mixed.b2nd"].etag != array.etag)
        read_part(part, *rest, **alone)

    array._read_part = replaced_meanwhile
    with pytest.raises(Changed):
        array[:]


def test_an_answer_that_breaks_off_is_asked_for_again_and_says_why(client, serving) -> None:
    """As when an array is replaced while a large part of it is being sent."""
    info = client.info("foo/ints.b2nd")
    problem = b'{"type": "urn:caterva2:problem:changed", "detail": "replaced", "current_etag": "new"}'

    def answer(handler) -> None:
        if len(server.requests) == 1:
            serving.send(handler, b"\x93NUMPY", Content_Length="1000")
            handler.close_connection = True
        else:
            serving.send(handler, problem, 412, Content_Type="application/problem+json")

    server, transport = serving(answer)
    with pytest.raises(Changed):
        Array(transport, info)[:]
    assert len(server.requests) == 2
    assert all(f'"{info["etag"]}"' in headers["If-Match"] for _, _, headers, _ in server.requests)
