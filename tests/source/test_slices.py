"""Reads over any source, against numpy."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caterva2.errors import Corrupt, InvalidSelection, NotFound, TooLarge, Unavailable
from caterva2.model import grid
from caterva2.model.path import parse_path
from caterva2.model.selection import Axis, Selection, select
from caterva2.source import batch
from caterva2.source.slices import Reader
from caterva2.testing.memory import FileSource

RNG = np.random.default_rng(1)
TRUTH = np.cumsum(RNG.integers(-3, 4, (31, 23, 17)), axis=0).astype("i4")


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("slices")


@pytest.fixture(scope="module")
def source_of(directory) -> Callable[..., FileSource]:
    def _source_of(thing: Any, name: str = "x.b2nd") -> FileSource:
        (directory / name).write_bytes(thing if isinstance(thing, bytes) else thing.to_cframe())
        return FileSource(directory / name, parse_path(f"r/{name}"))

    return _source_of


@pytest.fixture(scope="module")
def small(source_of) -> FileSource:
    return source_of(blosc2.asarray(TRUTH, chunks=(10, 8, 9), blocks=(4, 3, 5)))


async def read(source, executor, key, limit=1 << 30):
    (dataset,) = (source._dataset,)
    head = await source.head(dataset)
    return await Reader(source, executor, limit_bytes=limit).array(head, select(key, head.shape))


BOUND = st.none() | st.integers(-35, 35)
STEP = st.none() | st.integers(-6, 6).filter(bool)
PART = st.builds(slice, BOUND, BOUND, STEP) | st.integers(-17, 16)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.lists(PART, max_size=3).map(tuple))
def test_slices_are_those_of_numpy(small, executor, key):
    found = asyncio.run(read(small, executor, key))
    assert found.dtype == TRUTH.dtype
    assert found.shape == TRUTH[key].shape
    assert np.array_equal(found, TRUTH[key])


async def test_zero_dimensions(source_of, executor):
    source = source_of(blosc2.asarray(np.array(3.5)))
    found = await read(source, executor, ())
    assert isinstance(found, np.ndarray)
    assert (found.shape, float(found)) == ((), 3.5)


async def test_nothing_is_read_for_nothing(small, executor):
    before = small.extents_read
    found = await read(small, executor, (slice(0, 0), slice(None), 3))
    assert (found.shape, small.extents_read) == ((0, 23), before)


async def test_too_large_is_refused_before_anything_is_read(source_of, executor):
    source = source_of(blosc2.zeros((3_000_000, 400_000), chunks=(10_000, 10_000), blocks=(1000, 1000)))
    with pytest.raises(TooLarge) as raised:
        await read(source, executor, (), limit=1000)
    assert raised.value.nbytes == 3_000_000 * 400_000 * 8
    assert (source.extents_read, source.pages_made) == (0, 0)
    assert not (await read(source, executor, (slice(5), 7))).any()


class Batched(FileSource):
    """Notes what each read asks for, and how many reads are under way."""

    batches: list[int]
    fail_after: int | None = None

    async def read(self, head, extents):
        self.batches.append(sum(extent.size for extent in extents))
        if self.fail_after is not None and len(self.batches) > self.fail_after:
            raise Unavailable("gone")
        await asyncio.sleep(0)
        return await super().read(head, extents)


@pytest.fixture
def batched(directory, monkeypatch) -> Batched:
    monkeypatch.setattr(batch, "BATCH_BYTES", 200_000)
    truth = RNG.integers(0, 1 << 60, (200, 1000))
    (directory / "b.b2nd").write_bytes(blosc2.asarray(truth, chunks=(10, 1000), blocks=(5, 100)).to_cframe())
    source = Batched(directory / "b.b2nd", parse_path("r/b.b2nd"))
    source.batches = []
    source.truth = truth
    return source


async def test_batches_are_bounded(batched, executor):
    found = await read(batched, executor, ())
    assert np.array_equal(found, batched.truth)
    assert len(batched.batches) > 5
    assert max(batched.batches) < 300_000


async def test_a_failed_read_ends_the_whole(batched, executor):
    batched.fail_after = 3
    with pytest.raises(Unavailable):
        await read(batched, executor, ())
    assert len(batched.batches) == 4
    assert len(asyncio.all_tasks()) == 1


async def test_cancelled_reads_leave_nothing(batched, executor):
    task = asyncio.create_task(read(batched, executor, ()))
    async with asyncio.timeout(5):
        while len(batched.batches) < 2:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


async def test_damaged_bytes_are_corrupt(small, executor):
    class Damaged(FileSource):
        async def read(self, head, extents):
            return [bytes(extent.size) for extent in extents]

    source = object.__new__(Damaged)
    source.__dict__.update(small.__dict__)
    with pytest.raises(Corrupt):
        await read(source, executor, ())


@pytest.mark.parametrize("pieces", [1, 3])
async def test_large_cells_are_read_in_pieces(source_of, executor, monkeypatch, pieces):
    monkeypatch.setattr(grid, "PIECE_BYTES", pieces * 4 * 3 * 5 * 4)
    source = source_of(blosc2.asarray(TRUTH, chunks=(31, 23, 17), blocks=(4, 3, 5)))
    for key in ((), (slice(None, None, -3), 4), (slice(2, 29, 5), slice(1, None, 4), slice(None, None, 6))):
        assert np.array_equal(await read(source, executor, key), TRUTH[key])


# -- points ----------------------------------------------------------------------------------------


@st.composite
def fancy_keys(draw):
    common = draw(st.sampled_from([(4,), (3, 1), (1, 5), (3, 5), (), (0,)]))
    key = []
    for n in TRUTH.shape[: draw(st.integers(1, 3))]:
        kind = draw(st.sampled_from(["list", "list", "int", "slice"]))
        if kind == "list":
            shape = draw(st.sampled_from([common, common[-1:]]))
            count = math.prod(shape)
            values = draw(st.lists(st.integers(-n, n - 1), min_size=count, max_size=count))
            key.append(np.array(values, dtype="i8").reshape(shape).tolist())
        elif kind == "int":
            key.append(draw(st.integers(-n, n - 1)))
        else:
            key.append(slice(draw(BOUND), draw(BOUND), draw(STEP)))
    return tuple(key)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=fancy_keys())
def test_points_are_those_of_numpy(small, executor, key):
    typed = tuple(np.array(part, dtype="i8") if isinstance(part, list) else part for part in key)
    want = TRUTH[typed]

    async def points():
        head = await small.head(small._dataset)
        return await Reader(small, executor, limit_bytes=1 << 20).points(head, key)

    found = asyncio.run(points())
    assert found.shape == want.shape
    assert np.array_equal(found, want)


async def test_points_are_not_read_by_their_bounding_box(source_of, executor):
    truth = RNG.integers(0, 1 << 60, (1000, 1000))
    source = source_of(blosc2.asarray(truth, chunks=(100, 100), blocks=(10, 10)))
    head = await source.head(source._dataset)
    found = await Reader(source, executor, limit_bytes=1000).points(head, ([0, 999, 0, 500], [0, 999, 1, 3]))
    assert np.array_equal(found, truth[[0, 999, 0, 500], [0, 999, 1, 3]])
    assert source.bytes_read < 4 * 100 * 100 * 8


@pytest.mark.parametrize(
    "key",
    [
        ([31],), ([-32],), ([0.5],), ([True],), (["a"],), ([[1], [2, 3]],), ([10**30],), ([1, 2], [1, 2, 3]),
        ([0], 0, 0, 0), (None, [1]), ([0], "a"),
    ],
    ids=str,
)  # fmt: skip
async def test_malformed_points(small, executor, key):
    head = await small.head(small._dataset)
    with pytest.raises(InvalidSelection):
        await Reader(small, executor, limit_bytes=1 << 20).points(head, key)


async def test_too_many_points(small, executor):
    head = await small.head(small._dataset)
    reader = Reader(small, executor, limit_bytes=1 << 20)
    with pytest.raises(TooLarge):
        await reader.points(head, ([[0]] * 5000, [[0] * 5000]))
    with pytest.raises(TooLarge):
        await reader.points(head, ([0] * 10_000, slice(None)))


# -- items and chunks --------------------------------------------------------------------------------


async def test_items(source_of, executor):
    data = RNG.integers(0, 9, 9001 * 4, "u1").tobytes()
    source = source_of(blosc2.SChunk(chunksize=4000, data=data, cparams={"typesize": 4}), "x.b2frame")
    head = await source.head(source._dataset)
    reader = Reader(source, executor, limit_bytes=len(data))
    for start, stop in ((0, 9001), (5, 5), (3, 4001), (9000, 9001)):
        assert await reader.items(head, start, stop) == data[start * 4 : stop * 4]
    for start, stop in ((-1, 3), (4, 3), (0, 9002)):
        with pytest.raises(InvalidSelection):
            await reader.items(head, start, stop)


async def test_chunks_are_as_stored(source_of, executor):
    truth = RNG.integers(0, 1 << 60, (300, 400))
    truth[100:200] = 0
    array = blosc2.asarray(truth, chunks=(100, 400), blocks=(10, 100))
    source = source_of(array)
    head = await source.head(source._dataset)
    reader = Reader(source, executor, limit_bytes=1 << 20)
    stored = blosc2.ndarray_from_cframe(array.to_cframe())
    for n in range(3):
        chunk = await reader.chunk(head, n)
        assert blosc2.decompress2(chunk) == stored.schunk.decompress_chunk(n)
        if n != 1:
            assert chunk == stored.schunk.get_chunk(n)
    assert len(await reader.chunk(head, 1)) == 32
    for n in (-1, 3):
        with pytest.raises(NotFound):
            await reader.chunk(head, n)
    with pytest.raises(TooLarge):
        await Reader(source, executor, limit_bytes=1000).chunk(head, 0)


async def test_files_have_no_chunks_but_bytes(source_of, executor):
    data = RNG.integers(0, 256, 700_000, "u1").tobytes()
    source = source_of(data, "x.bin")
    head = await source.head(source._dataset)
    reader = Reader(source, executor, limit_bytes=1 << 20)
    with pytest.raises(NotFound):
        await reader.chunk(head, 0)
    found = await reader.array(head, Selection((Axis(200_000, 400_000),)))
    assert found.tobytes() == data[200_000:600_000]


def test_the_file_source_streams(small):
    async def stream() -> bytes:
        head = await small.head(small._dataset)
        pieces: AsyncIterator[bytes] = small.stream(head, 3, head.size)
        return b"".join([piece async for piece in pieces])

    assert asyncio.run(stream()) == small.pread(3, small._head.size - 3)
