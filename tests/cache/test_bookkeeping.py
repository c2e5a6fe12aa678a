"""What is counted is what the disk holds, after any history.

Holes free whole blocks of the file system. So what a mirror takes is what is present, and at each edge of a
run of extents a part of a block. Such a block may also be left where two pages of a manifest meet, as an
eviction sees only the pages of what it evicts.
"""

import os
import random

import blosc2
import numpy as np
import pytest

from caterva2.cache.census import all_spans, stored_manifest
from caterva2.cache.eviction import evict_extents
from caterva2.cache.index import Index
from caterva2.cache.spans import joined
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents


@pytest.fixture
def block_bytes(tmp_path):
    return os.statvfs(tmp_path).f_bsize


@pytest.fixture
def paths(origin, array_bytes, frame_bytes):
    contents = {"x.b2nd": array_bytes, "y.b2frame": frame_bytes, "z.bin": os.urandom(1_500_000)}
    paths = {DatasetPath("foo", name): data for name, data in contents.items()}
    for path, data in paths.items():
        origin.publish(path, data)
    return paths


def check(cached, directory, block_bytes):
    """Compare what is counted with what the disk holds; returns what is counted."""
    index = Index(directory / "index.sqlite")
    versions = cached._store.everything()
    for version in versions:
        head, pages = stored_manifest(index, version.id)
        spans = all_spans(head, pages)
        present = np.isin(spans.numbers, version.mirror.numbers())
        assert version.cached_bytes == spans.sizes[present].sum()
        starts, stops = joined(spans.offsets[present], spans.stops[present])
        first, last = joined(starts // block_bytes, -(-stops // block_bytes))
        touched = int((last - first).sum()) * block_bytes
        assert version.cached_bytes <= touched <= version.cached_bytes + 2 * block_bytes * len(starts)
        file = version.mirror.data_file
        on_disk = file.stat().st_blocks * 512 if file.exists() else 0
        where_pages_meet = block_bytes * (head.npages + 1)
        of_the_file_system = block_bytes * (1 + len(starts) // 100)  # it notes where the blocks are
        assert touched <= on_disk <= touched + where_pages_meet + of_the_file_system, version.path
    index.close()
    counted = sum(version.cached_bytes for version in versions)
    assert counted == cached.stats.cached_bytes
    return counted


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_history(opened, origin, paths, tmp_path, block_bytes, seed):
    chance = random.Random(seed)
    quota = sum(map(len, paths.values())) // 2
    evicted = 0
    for _ in range(4):  # restarts
        async with opened(quota_bytes=quota) as cached:
            for _ in range(60):
                path = chance.choice(list(paths))
                head = await cached.head(path)
                match chance.randrange(20):
                    case 0:
                        await cached.drop(path)
                    case 1:
                        origin.publish(path, paths[path])
                    case 2:
                        await cached.fill(head)
                    case _:
                        extents = await all_extents(cached, head)
                        start = chance.randrange(len(extents))
                        await cached.read(head, extents[start : start + chance.choice((1, 2, 30))])
                await cached._store._disk.close()  # what was removed is gone
                assert check(cached, tmp_path / "cache", block_bytes) <= quota
            evicted += cached.stats.evicted
    assert evicted > 100


async def test_small_extents_that_go_one_by_one_leave_nothing(opened, origin, paths, tmp_path, block_bytes):
    """None of them has a whole block of its own."""
    path = DatasetPath("foo", "small.b2nd")
    origin.publish(path, small_blocks())
    async with opened(quota_bytes=10**9) as cached:
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        assert np.median([extent.size for extent in extents]) < block_bytes
        await cached.read(head, extents)
        (version,) = cached._store.all_of(path)
        index = cached._store._inventory.index
        numbers = [extent.number for extent in extents]
        random.Random(1).shuffle(numbers)
        for number in numbers[: len(numbers) * 9 // 10]:
            _, nbytes, error = evict_extents(index, version, np.array([number]))
            assert error is None
            cached._store._inventory.count(version, -nbytes)
        check(cached, tmp_path / "cache", block_bytes)


def small_blocks():
    array = blosc2.asarray(
        np.random.default_rng(1).integers(0, 1 << 62, (200_000,)),
        chunks=(100_000,),
        blocks=(200,),
        cparams={"nthreads": 1},
    )
    return array.to_cframe()
