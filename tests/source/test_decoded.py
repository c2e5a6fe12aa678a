"""Decoded blocks that are kept for small reads."""

from concurrent.futures import ThreadPoolExecutor

import blosc2
import numpy as np
import pytest

from caterva2.frame.geometry import geometry_of
from caterva2.frame.library import is_ready, library
from caterva2.model.path import parse_path
from caterva2.model.selection import select
from caterva2.source.decoded import EXTRA_BYTES, Decoded
from caterva2.source.slices import Reader
from caterva2.testing.memory import FileSource

TRUTH = np.arange(40 * 60, dtype="i8").reshape(40, 60)
PARAMS = {"chunks": (20, 20), "blocks": (10, 10)}
BLOCK_BYTES = 10 * 10 * 8
COST = BLOCK_BYTES + EXTRA_BYTES


class Counted(FileSource):
    """Counts what is read."""

    reads = 0

    async def read(self, head, extents):
        self.reads += 1
        return await super().read(head, extents)


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(autouse=True)
def ready():
    """The decoder is there, as from the second read of a process on."""
    library()


@pytest.fixture
def make(tmp_path):
    def make(array, name="x.b2nd"):
        (tmp_path / name).write_bytes(blosc2.asarray(array, **PARAMS).to_cframe())
        return Counted(tmp_path / name, parse_path(f"r/{name}"))

    return make


async def read(reader, head, key):
    return await reader.array(head, select(key, head.shape))


async def test_a_block_is_kept_from_its_second_use_on(make, executor) -> None:
    source = make(TRUTH)
    head = await source.head(parse_path("r/x.b2nd"))
    reader = Reader(source, executor, limit_bytes=1 << 30, decoded_bytes=1 << 20)
    for reads, kept in ((1, 0), (2, 1), (2, 1), (2, 1)):
        assert await read(reader, head, (3, 4)) == TRUTH[3, 4]
        assert (source.reads, reader.decoded.stats.cached_bytes) == (reads, kept * BLOCK_BYTES)
    assert (reader.decoded.stats.hits, reader.decoded.stats.misses) == (2, 2)


@pytest.mark.parametrize(
    "key", [(slice(5, 25), slice(5, 45)), (slice(0, 40, 7), 59), (slice(None, None, -3),)]
)
async def test_what_is_kept_is_what_was_stored(make, executor, key) -> None:
    source = make(TRUTH)
    head = await source.head(parse_path("r/x.b2nd"))
    reader = Reader(source, executor, limit_bytes=1 << 30, decoded_bytes=1 << 20)
    for _ in range(4):
        np.testing.assert_array_equal(await read(reader, head, key), TRUTH[key])
    assert reader.decoded.stats.hits
    assert source.reads == 2


async def test_nothing_is_kept_without_a_budget(make, executor) -> None:
    source = make(TRUTH)
    head = await source.head(parse_path("r/x.b2nd"))
    reader = Reader(source, executor, limit_bytes=1 << 30)
    for _ in range(3):
        await read(reader, head, (3, 4))
    assert (source.reads, reader.decoded.stats.cached_bytes) == (3, 0)


async def test_a_new_version_and_another_dataset_have_nothing_of_it(make, executor) -> None:
    source = make(TRUTH)
    head = await source.head(parse_path("r/x.b2nd"))
    decoded = Decoded(1 << 20)
    block = memoryview(bytes(geometry_of(head).blocksize))
    for _ in range(2):
        decoded.put(head, 0, [0], block)
    assert [kept.tobytes() for kept in decoded.get(head, 0, [0])] == [block]
    assert decoded.get(head.named("another", 2), 0, [0]) is None
    other = await make(TRUTH, "y.b2nd").head(parse_path("r/y.b2nd"))
    assert decoded.get(other.named(head.etag, head.generation), 0, [0]) is None


async def test_blocks_stay_within_the_budget(make) -> None:
    head = await make(TRUTH).head(parse_path("r/x.b2nd"))
    decoded = Decoded(3 * COST)
    for nchunk in (0, 1, 2):
        for _ in range(2):
            decoded.put(head, nchunk, [0, 2], memoryview(bytes([nchunk]) * 2 * BLOCK_BYTES))
    assert decoded.stats.cached_bytes == 2 * BLOCK_BYTES
    assert decoded.get(head, 0, [0]) is None
    assert [kept.tobytes() for kept in decoded.get(head, 2, [2])] == [bytes([2]) * BLOCK_BYTES]
    for _ in range(3):
        decoded.put(head, 3, [0, 1, 2, 3], memoryview(bytes(4 * BLOCK_BYTES)))  # more than there may be
    assert decoded.get(head, 3, [0]) is None


async def test_the_smallest_blocks_cost_more_than_their_bytes(make) -> None:
    head = await make(TRUTH).head(parse_path("r/x.b2nd"))
    decoded = Decoded(100 * (8 + EXTRA_BYTES))
    for nchunk in range(1000):
        for _ in range(2):
            decoded.put(head, nchunk, [0], memoryview(bytes(8)))
    assert decoded.stats.cached_bytes == 100 * 8
    assert len(decoded._used) == 100


async def test_what_is_given_may_be_used_again(make) -> None:
    head = await make(TRUTH).head(parse_path("r/x.b2nd"))
    decoded, raw = Decoded(1 << 20), bytearray(b"1" * 2 * BLOCK_BYTES)
    for _ in range(2):
        decoded.put(head, 0, [0, 1], memoryview(raw))
    decoded.used_before(head, 0, [2], BLOCK_BYTES)
    decoded.put(head, 0, [1, 2], memoryview(raw))  # of which one is kept already
    raw[:] = bytes(len(raw))
    assert {kept.tobytes() for kept in decoded.get(head, 0, [0, 1, 2])} == {b"1" * BLOCK_BYTES}


async def test_who_reads_more_than_can_be_kept_pushes_out_nothing_however_often(make, executor) -> None:
    source = make(TRUTH)
    head = await source.head(parse_path("r/x.b2nd"))
    reader = Reader(source, executor, limit_bytes=1 << 30, decoded_bytes=2 * COST)
    for _ in range(2):
        await read(reader, head, (0, 0))
    for _ in range(3):
        for row in range(0, 40, 10):
            for column in range(0, 60, 10):
                if row or column:
                    await read(reader, head, (row, column))
    reads = source.reads
    await read(reader, head, (9, 9))
    assert source.reads == reads


async def test_large_reads_are_kept_too(make, executor) -> None:
    truth = np.random.default_rng(1).integers(0, 100, (600, 1000))
    source = make(truth, "large.b2nd")
    head = await source.head(parse_path("r/large.b2nd"))
    reader = Reader(source, executor, limit_bytes=1 << 30, decoded_bytes=1 << 28)
    for key in ((), (slice(None), 7), (slice(3, 590, 11), slice(None, None, -2))):
        for _ in range(2):
            np.testing.assert_array_equal(await read(reader, head, key), truth[key])
    assert reader.decoded.stats.cached_bytes == truth.nbytes
    reads = source.reads
    for key in ((), (5,), (slice(None), 9), (slice(7, None, 3), slice(11, 900))):
        np.testing.assert_array_equal(await read(reader, head, key), truth[key])
    assert source.reads == reads


async def test_threads_can_share_it(make, executor) -> None:
    head = await make(TRUTH).head(parse_path("r/x.b2nd"))
    decoded = Decoded(20 * COST)

    def use(seed: int) -> None:
        for nchunk in np.random.default_rng(seed).integers(0, 30, 2000).tolist():
            found = decoded.get(head, nchunk, [0, 1])
            if found is None:
                decoded.put(head, nchunk, [0, 1], memoryview(bytes([nchunk]) * 2 * BLOCK_BYTES))
            else:
                assert {kept.tobytes() for kept in found} == {bytes([nchunk]) * BLOCK_BYTES}
            assert decoded.stats.cached_bytes <= 20 * BLOCK_BYTES

    for done in [executor.submit(use, seed) for seed in range(4)]:
        done.result()
    assert decoded.stats.hits


async def test_a_service_has_it_imported_before_the_first_read(make, executor) -> None:
    library.cache_clear()
    reader = Reader(make(TRUTH), executor, limit_bytes=1 << 30)
    await reader.ready()  # nothing is on its way
    assert not is_ready()
    reader.get_ready()
    await reader.ready()
    assert is_ready()


class TestDecodes:
    """Whether a part is decoded here or sent as it is stored."""

    @pytest.fixture
    async def head(self, make):
        self.source = make(np.random.default_rng(2).integers(0, 3, (40, 60)))
        return await self.source.head(parse_path("r/x.b2nd"))

    def test_from_the_second_use_on(self, head, executor) -> None:
        reader = Reader(self.source, executor, limit_bytes=1 << 30, decoded_bytes=1 << 20)
        one, more = (select(key, head.shape) for key in ((3, 4), (3, slice(4, 15))))
        assert [reader.decodes(head, one, near=False) for _ in range(3)] == [False, True, True]
        assert [reader.decodes(head, more, near=False) for _ in range(2)] == [False, True]

    def test_who_is_far_away_gets_no_more_bytes_than_are_stored(self, head, executor) -> None:
        reader = Reader(self.source, executor, limit_bytes=1 << 30, decoded_bytes=1 << 20)
        whole = select((), head.shape)
        assert head.size < TRUTH.nbytes
        assert [reader.decodes(head, whole, near=False) for _ in range(3)] == [False] * 3
        assert [reader.decodes(head, whole, near=True) for _ in range(3)] == [False] * 3
        half = select((slice(None, None, 2),), head.shape)
        assert [reader.decodes(head, half, near=False) for _ in range(3)] == [False] * 3
        assert [reader.decodes(head, half, near=True) for _ in range(2)] == [False, True]

    @pytest.mark.parametrize("decoded_bytes", [0, 20 * COST])
    def test_not_what_cannot_be_kept(self, head, executor, decoded_bytes) -> None:
        reader = Reader(self.source, executor, limit_bytes=1 << 30, decoded_bytes=decoded_bytes)
        assert [reader.decodes(head, select((), head.shape), near=True) for _ in range(3)] == [False] * 3


async def test_who_reads_everything_once_pushes_out_nothing(make, executor) -> None:
    source = make(TRUTH)
    head = await source.head(parse_path("r/x.b2nd"))
    reader = Reader(source, executor, limit_bytes=1 << 30, decoded_bytes=2 * COST)
    for _ in range(2):
        await read(reader, head, (0, 0))
    for row in range(0, 40, 10):
        for column in range(0, 60, 10):
            await read(reader, head, (row, column))
    reads = source.reads
    await read(reader, head, (9, 9))
    assert source.reads == reads


async def test_the_first_read_imports_the_decoder_in_a_thread(make, executor, monkeypatch) -> None:
    """On the event loop that would keep all others waiting for as long as it takes."""
    source, jobs = make(TRUTH), []
    head = await source.head(parse_path("r/x.b2nd"))
    submit = executor.submit
    monkeypatch.setattr(executor, "submit", lambda *job, **more: jobs.append(job) or submit(*job, **more))
    reader = Reader(source, executor, limit_bytes=1 << 30)
    library.cache_clear()
    assert not is_ready()
    assert await read(reader, head, (3, 4)) == TRUTH[3, 4]
    assert jobs
    assert is_ready()
    jobs.clear()
    assert await read(reader, head, (5, 6)) == TRUTH[5, 6]
    assert not jobs
