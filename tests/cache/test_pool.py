import random
import sys
import threading
from pathlib import Path

import pytest

from caterva2.cache.mirror import Mirror
from caterva2.cache.pool import MirrorFiles, MirrorPool
from caterva2.model.extents import Extent, digest

SIZE = 100_000
DATA = random.Random(7).randbytes(SIZE)
EXTENTS = [Extent(n, n * 1000, 1000, digest(DATA[n * 1000 : (n + 1) * 1000])) for n in range(100)]


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def items(extents):
    return [(extent, DATA[extent.offset : extent.stop]) for extent in extents]


@pytest.fixture
def pool(tmp_path):
    pool = MirrorPool(tmp_path, max_open=3)
    yield pool
    pool.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
def test_few_files_are_open(pool):
    before = open_files()
    mirrors = [Mirror(pool, f"m{n}", SIZE, 100) for n in range(10)]
    for _ in range(2):
        for mirror in mirrors:
            mirror.write(items(EXTENTS[:1]))
            assert mirror.read(EXTENTS[:1])[0] == [DATA[:1000]]
            assert open_files() - before <= 2 * 3
    pool.close()
    assert open_files() == before


def test_large_maps_are_not_all_held(pool, monkeypatch):
    monkeypatch.setattr("caterva2.cache.pool.MAX_MAP_BYTES", 250)
    mirrors = [Mirror(pool, f"m{n}", SIZE, 100) for n in range(3)]
    for mirror in [*mirrors, Mirror(pool, "large", SIZE, 1000)]:
        mirror.write(items(EXTENTS[:1]))
        assert mirror.read(EXTENTS[:1])[0] == [DATA[:1000]]
        assert pool.map_bytes <= 250 or len(pool) == 1
    assert (len(pool), pool.map_bytes) == (1, 1000)
    assert mirrors[0].read(EXTENTS[:1])[0] == [DATA[:1000]]
    assert (len(pool), pool.map_bytes) == (1, 100)


def test_many_threads_and_few_files(pool):
    """Files are closed under others all the time; nobody reads or writes the wrong one."""
    mirrors = [Mirror(pool, f"m{n}", SIZE, 100) for n in range(8)]
    wrong = []

    def work(seed):
        chance = random.Random(seed)
        for _ in range(200):
            which = chance.randrange(8)
            extent = chance.choice(EXTENTS)
            shifted = bytes(byte ^ which for byte in DATA[extent.offset : extent.stop])
            mine = Extent(extent.number, extent.offset, extent.size, digest(shifted))
            (piece,), rejected, _ = mirrors[which].read([mine])
            if rejected or piece not in (None, shifted):
                wrong.append((which, extent.number))
            mirrors[which].write([(mine, shifted)])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(pool) <= 3


def test_who_uses_files_keeps_them_open(pool):
    files = MirrorFiles(pool, "m", 10, 3)
    with files.opened() as (_, _, states):
        files.close()
        states[1] = 2
        with files.opened() as (_, _, same):
            assert same is states
    with files.opened() as (_, _, anew):
        assert anew.tolist() == [0, 0, 0]


def test_what_was_removed_is_not_opened_again(pool):
    files = MirrorFiles(pool, "m", 10, 3)
    with files.opened():
        files.remove()
    assert pool.names() == set()
    with pytest.raises(FileNotFoundError), files.opened():
        pass


def test_the_one_used_last_is_noted_again_after_all_were_closed(pool):
    mirror = Mirror(pool, "m", SIZE, 100)
    mirror.write(items(EXTENTS[:1]))
    for _ in range(2):
        assert mirror.read(EXTENTS[:1])[0] == [DATA[:1000]]
        assert (len(pool), pool.map_bytes) == (1, 100)
        pool.close()
        assert (len(pool), pool.map_bytes) == (0, 0)
