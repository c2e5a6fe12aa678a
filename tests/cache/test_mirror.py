import errno
import os
import random
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from caterva2.cache import fileio
from caterva2.cache import mirror as module
from caterva2.cache.mirror import Mirror
from caterva2.cache.pool import MirrorPool
from caterva2.cache.spans import Spans
from caterva2.model.extents import Extent, digest

SIZE = 100_000
DATA = random.Random(7).randbytes(SIZE)
SCRATCH = memoryview(bytearray(SIZE))
EXTENTS = [Extent(n, n * 1000, 1000, digest(DATA[n * 1000 : (n + 1) * 1000])) for n in range(100)]


def items(extents):
    return [(extent, DATA[extent.offset : extent.stop]) for extent in extents]


@pytest.fixture
def pool(tmp_path):
    pool = MirrorPool(tmp_path, max_open=3)
    yield pool
    pool.close()


@pytest.fixture
def mirror(pool):
    return Mirror(pool, "m", SIZE, 100)


def reopened(pool):
    pool.close()
    return Mirror(pool, "m", SIZE, 100)


def test_the_presence_map_can_be_looked_at_while_others_write(pool):
    nextents = 1 << 20
    mirror = Mirror(pool, "large", SIZE, nextents)
    mirror.write(items(EXTENTS))
    stop = threading.Event()
    some = np.arange(100, dtype=np.int64)

    def write() -> None:
        while not stop.is_set():
            mirror.clear(some)
            mirror.write(items(EXTENTS))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            assert set(mirror.numbers().tolist()) <= set(range(100))
    finally:
        stop.set()
        writer.join()


def test_empty_at_first(mirror):
    assert mirror.read(EXTENTS[:2]) == ([None, None], [], 0)
    assert mirror.numbers().tolist() == []


def test_what_was_written_is_read(mirror):
    assert mirror.write(items(EXTENTS[3:6])) == (EXTENTS[3:6], None)
    assert mirror.write(items(EXTENTS[5:7])) == (EXTENTS[6:7], None)
    pieces, rejected, verified = mirror.read(EXTENTS[2:8])
    assert pieces == [None, *(data for _, data in items(EXTENTS[3:7])), None]
    assert (rejected, verified) == ([], 0)
    assert mirror.numbers().tolist() == [3, 4, 5, 6]
    assert mirror.data_file.read_bytes()[3000:7000] == DATA[3000:7000]


def test_after_opening_again_it_is_checked_once(mirror, pool):
    mirror.write(items(EXTENTS[3:6]))
    again = reopened(pool)
    assert again.unverified(EXTENTS[3:6]) == EXTENTS[3:6]
    assert again.read(EXTENTS[3:5])[2] == 2
    assert again.read(EXTENTS[3:5])[2] == 0
    assert again.unverified(EXTENTS[3:6]) == EXTENTS[5:6]


def test_a_flipped_byte_makes_it_absent(mirror, pool):
    mirror.write(items(EXTENTS[3:6]))
    pool.close()
    with mirror.data_file.open("r+b") as file:
        file.seek(4321)
        file.write(bytes([DATA[4321] ^ 4]))
    again = reopened(pool)
    pieces, rejected, _ = again.read(EXTENTS[3:6])
    assert pieces == [DATA[3000:4000], None, DATA[5000:6000]]
    assert rejected == [EXTENTS[4]]
    assert reopened(pool).numbers().tolist() == [3, 5]


def test_a_presence_bit_without_bytes_is_found(mirror, pool):
    mirror.write(items(EXTENTS[:1]))
    pool.close()
    mirror.map_file.write_bytes(b"\1" * 100)
    pieces, rejected, _ = reopened(pool).read(EXTENTS)
    assert pieces == [DATA[:1000], *[None] * 99]
    assert len(rejected) == 99


@pytest.mark.parametrize("suffix", [".data", ".map"])
def test_files_of_another_size_are_begun_anew(mirror, pool, tmp_path, suffix):
    mirror.write(items(EXTENTS[:2]))
    pool.close()
    os.truncate(tmp_path / f"m{suffix}", 50)
    again = reopened(pool)
    assert again.read(EXTENTS[:2])[0] == [None, None]
    again.write(items(EXTENTS[:2]))
    assert reopened(pool).read(EXTENTS[:2])[0] == [DATA[:1000], DATA[1000:2000]]


def test_a_file_cut_behind_our_back(mirror):
    mirror.write(items(EXTENTS[:2]))
    os.truncate(mirror.data_file, 1500)
    pieces, rejected, _ = mirror.read(EXTENTS[:2])
    assert pieces == [DATA[:1000], None]
    assert rejected == [EXTENTS[1]]


def test_clear(mirror, pool):
    mirror.write(items(EXTENTS[:4]))
    mirror.clear(np.array([1, 2]))
    assert mirror.read(EXTENTS[:3])[0] == [DATA[:1000], None, None]
    assert reopened(pool).numbers().tolist() == [0, 3]


def test_a_full_disk_keeps_what_it_could(mirror, monkeypatch):
    wrote = []

    def pwrite(fd, data, offset):
        if len(data) > 1 and len(wrote) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        wrote.extend([offset] if len(data) > 1 else [])
        return os.pwrite(fd, data, offset)

    monkeypatch.setattr(fileio, "_pwrite_once", pwrite)
    new, error = mirror.write(items(EXTENTS[:5]))
    assert new == EXTENTS[:2]
    assert error is not None and error.errno == errno.ENOSPC
    assert mirror.read(EXTENTS[:3])[0] == [DATA[:1000], DATA[1000:2000], None]


def test_removed(mirror, pool):
    mirror.write(items(EXTENTS[:2]))
    mirror.remove()
    assert pool.names() == set()
    with pytest.raises(FileNotFoundError):
        mirror.read(EXTENTS[:1])


def spans(extents):
    return Spans(
        np.array([extent.number for extent in extents]),
        np.array([extent.offset for extent in extents]),
        np.array([extent.size for extent in extents]),
    )


def evict(mirror, extents):
    known = spans(extents)
    return mirror.evict(known.numbers, known)


class TestEvict:
    def test_makes_absent_and_leaves_the_others(self, mirror, pool):
        mirror.write(items(EXTENTS[:90]))
        before = mirror.data_file.stat().st_blocks
        assert evict(mirror, (EXTENTS[10:50] + EXTENTS[95:])) == (40, 40_000, None)
        assert mirror.data_file.stat().st_blocks <= before - 8 * 8
        assert mirror.data_file.stat().st_size == SIZE
        for opened in (mirror, reopened(pool)):
            pieces, rejected, _ = opened.read(EXTENTS)
            assert pieces[:10] == [data for _, data in items(EXTENTS[:10])]
            assert pieces[10:50] == [None] * 40
            assert pieces[50:90] == [data for _, data in items(EXTENTS[50:90])]
            assert rejected == []

    def test_one_that_overlaps_is_found_damaged(self, mirror):
        over = Extent(99, 4500, 1000, digest(DATA[4500:5500]))
        mirror.write(items([*EXTENTS[3:5], over]))
        evict(mirror, (EXTENTS[4:5]))
        assert mirror.read([EXTENTS[3], over]) == ([DATA[3000:4000], None], [over], 2)

    def test_one_that_overlaps_and_is_known_stays_whole(self, mirror):
        over = Extent(99, 4500, 1000, digest(DATA[4500:5500]))
        mirror.write(items([*EXTENTS[3:5], over]))
        known = spans([*EXTENTS[:99], over])
        assert mirror.evict(np.array([4]), known) == (1, 1000, None)
        assert mirror.read([EXTENTS[3], over]) == ([DATA[3000:4000], DATA[4500:5500]], [], 2)

    def test_blocks_shared_by_extents_that_go_one_after_the_other_are_freed(self, mirror):
        mirror.write(items(EXTENTS))
        for number in random.Random(2).sample(range(100), 100):
            mirror.evict(np.array([number]), spans(EXTENTS))
        assert mirror.data_file.stat().st_blocks == 0

    def test_readers_in_threads_get_no_zeros(self, mirror):
        """Extents go and come back all the time; what is read is right or absent."""
        wrong, reads = [], [0] * 4
        stop = threading.Event()

        def read(seed):
            chance = random.Random(seed)
            while not stop.is_set():
                wanted = chance.sample(EXTENTS, 5)
                pieces, rejected, _ = mirror.read(wanted)
                for extent, piece in zip(wanted, pieces, strict=True):
                    if piece not in (None, DATA[extent.offset : extent.stop]) or rejected:
                        wrong.append(extent.number)
                    reads[seed] += piece is not None

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        chance = random.Random(9)
        for _ in range(1500):
            evict(mirror, (sorted(chance.sample(EXTENTS, 30), key=lambda extent: extent.number)))
            mirror.write(items(chance.sample(EXTENTS, 30)))
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert sum(reads) > 2000

    def test_where_no_hole_can_be_punched(self, mirror, monkeypatch):
        def unsupported(fd, offset, size):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(module, "punch", unsupported)
        mirror.write(items(EXTENTS[:4]))
        count, nbytes, error = evict(mirror, (EXTENTS[:2]))
        assert (count, nbytes, error.errno) == (2, 2000, errno.EOPNOTSUPP)
        assert mirror.read(EXTENTS[:3])[0] == [None, None, DATA[2000:3000]]


def test_concurrent_first_checks_leave_it_present(mirror, pool):
    mirror.write(items(EXTENTS[:1]))
    again = reopened(pool)
    with again._files.opened() as (_, map_fd, states):
        for _ in range(9):  # readers that all saw it unchecked
            assert again._judge(EXTENTS[0], True, 0, map_fd, states)
    assert again.unverified(EXTENTS[:1]) == []
    assert again.read(EXTENTS[:1])[0] == [DATA[:1000]]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which file is forced to disk")
def test_durable_bytes_are_on_disk_before_their_marks_and_these_before_it_is_done(tmp_path, monkeypatch):
    seen = []

    def sync(fd):
        os.fsync(fd)
        file = Path(f"/proc/self/fd/{fd}").readlink().suffix
        seen.append((file, mirror.data_file.read_bytes()[3000:4000] == DATA[3000:4000], marks()))

    def marks():
        return mirror.map_file.read_bytes().count(1)

    monkeypatch.setattr(fileio, "_fdatasync", sync)
    pool = MirrorPool(tmp_path, durable=True)
    mirror = Mirror(pool, "m", SIZE, 100)
    assert mirror.write(items(EXTENTS[3:6])) == (EXTENTS[3:6], None)
    assert seen == [(".data", True, 0), (".map", True, 3)]
    pool.close()


def test_what_is_known_to_be_right_is_read_without_waiting(mirror):
    mirror.write(items(EXTENTS[2:5] + EXTENTS[7:8]))
    wanted = [*EXTENTS[1:9], EXTENTS[3]]
    expected = [DATA[e.offset : e.stop] if e.number in (2, 3, 4, 7) else None for e in wanted]
    assert mirror.read_now(wanted, SCRATCH) == expected
    assert mirror.read(wanted) == (expected, [], 0)


def test_what_is_to_be_checked_is_not_read_at_once(pool, mirror):
    mirror.write(items(EXTENTS[:3]))
    again = reopened(pool)
    assert again.read_now(EXTENTS[:2], SCRATCH) is None  # its files are not open
    assert again.read(EXTENTS[:1]) == ([DATA[:1000]], [], 1)
    assert again.read_now(EXTENTS[:1], SCRATCH) == [DATA[:1000]]
    assert again.read_now(EXTENTS[:2], SCRATCH) is None
    again.evict(np.array([1]), Spans(np.arange(3), np.arange(3) * 1000, np.arange(1, 4) * 1000))
    assert again.read_now(EXTENTS[:1], SCRATCH) is None  # it may overlap with the hole


def test_a_run_of_extents_is_read_in_parts_of_bounded_size(mirror, monkeypatch):
    monkeypatch.setattr(module, "RUN_BYTES", 2500)
    sizes = []

    def read(fd, size, offset):
        sizes.append(size)
        return fileio.read_at(fd, size, offset)

    monkeypatch.setattr(module, "read_at", read)
    mirror.write(items(EXTENTS[:5]))
    assert mirror.read(EXTENTS[:5])[0] == [DATA[e.offset : e.stop] for e in EXTENTS[:5]]
    assert sizes == [2000, 2000, 1000]


def test_reading_now_gives_all_bytes_or_nothing(tmp_path):
    (tmp_path / "f").write_bytes(DATA)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        os.pread(fd, SIZE, 0)
        assert fileio.read_now(fd, 1000, 500, SCRATCH) in (DATA[500:1500], None)
        assert (fileio.read_now(fd, 1000, SIZE - 10, SCRATCH) or b"") in (b"", DATA[-10:])
    finally:
        os.close(fd)
