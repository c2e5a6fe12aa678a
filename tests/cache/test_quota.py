import asyncio
import random
from collections import Counter
from types import SimpleNamespace

import pytest

from caterva2.cache import quota, room
from caterva2.cache.eviction import FOLLOWED, ORDINARY, PINNED
from caterva2.cache.mirror import Mirror
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents, read_all

BLOCK = 4096


def disk_bytes(files):
    return sum(file.stat().st_blocks * 512 for file in files if file.suffix == ".data")


@pytest.fixture
def publish(origin):
    def publish(name, npages):
        path = DatasetPath("foo", name)
        origin.publish(path, random.Random(name).randbytes(npages * PAGE))
        return path

    return publish


class TestByExtent:
    async def test_what_is_read_often_of_a_large_dataset_stays(self, opened, origin, publish):
        large, other = publish("large", 40), publish("other", 60)
        async with opened(quota_bytes=50 * PAGE) as cached:
            await read_all(cached, large)
            head = await cached.head(large)
            hot = (await all_extents(cached, head))[7:40:4]
            rest = await cached.head(other)
            for extent in await all_extents(cached, rest):
                assert await cached.read(rest, [extent]) == [origin.data[other][extent.offset : extent.stop]]
                await cached.read(head, hot)
            assert {origin.reads[str(large), head.etag, extent.number] for extent in hot} == {1}
            assert cached.stats.cached_bytes <= 50 * PAGE
            assert not cached.state(large).complete

    async def test_the_disk_gets_its_blocks_back(self, opened, publish, mirror_files):
        path, other = publish("a", 40), publish("b", 40)
        async with opened(quota_bytes=50 * PAGE) as cached:
            await read_all(cached, path)
            full = disk_bytes(mirror_files())
            head = await cached.head(other)
            extents = await all_extents(cached, head)
            for n in range(0, 40, 4):
                await cached.read(head, extents[n : n + 4])
                await cached.read(head, extents[: n + 4])
                slack = BLOCK * 80
                assert abs(disk_bytes(mirror_files()) - cached.stats.cached_bytes) <= slack
            assert full >= 40 * PAGE
            assert disk_bytes(mirror_files()) <= 50 * PAGE + BLOCK * 80

    async def test_a_quota_smaller_than_an_extent_lets_go_of_what_was_there_before(
        self, opened, origin, publish
    ):
        path, other = publish("a", 10), publish("b", 2)
        async with opened() as cached:
            await read_all(cached, path)
        async with opened(quota_bytes=1000) as cached:
            assert cached.stats.cached_bytes == 10 * PAGE
            assert await read_all(cached, other) == origin.data[other]
            assert cached.stats.cached_bytes <= 1000

    async def test_readers_meanwhile_get_what_was_published(self, opened, origin, path, data, publish):
        other = publish("other", 40)
        async with opened(quota_bytes=15 * PAGE) as cached:

            async def reader(path, seed):
                chance = random.Random(seed)
                for _ in range(60):
                    head = await cached.head(path)
                    wanted = chance.sample(await all_extents(cached, head), 4)
                    pieces = await cached.read(head, wanted)
                    published = origin.data[path]
                    assert pieces == [published[extent.offset : extent.stop] for extent in wanted]

            await asyncio.gather(*(reader((path, other)[n % 2], n) for n in range(8)))
            assert cached.stats.evicted > 100
            assert cached.stats.rejected == 0
            assert cached.stats.cached_bytes <= 15 * PAGE

    async def test_one_larger_than_the_quota_streams_through(self, opened, origin, publish, mirror_files):
        path, other = publish("large", 40), publish("small", 4)
        async with opened(quota_bytes=10 * PAGE) as cached:
            await read_all(cached, other)
            head = await cached.head(path)
            position = 0
            async for piece in cached.stream(head, 0, head.size):
                assert piece == origin.data[path][position : position + len(piece)]
                position += len(piece)
                assert cached.stats.cached_bytes <= 10 * PAGE
                assert disk_bytes(mirror_files()) <= 10 * PAGE
            assert position == head.size

    async def test_arrays(self, opened, origin, array_bytes):
        path = DatasetPath("foo", "x.b2nd")
        origin.publish(path, array_bytes)
        chance = random.Random(3)
        async with opened(quota_bytes=len(array_bytes) // 2) as cached:
            head = await cached.head(path)
            extents = await all_extents(cached, head)
            for _ in range(200):
                wanted = chance.sample(extents, 3)
                pieces = await cached.read(head, wanted)
                assert pieces == [array_bytes[extent.offset : extent.stop] for extent in wanted]
            (version,) = cached._store.all_of(path)
            present = set(version.mirror.numbers().tolist())
            assert version.cached_bytes == sum(e.size for e in extents if e.number in present)
            assert (cached.stats.rejected, cached.stats.passed_through) == (0, 0)
            assert cached.stats.evicted > 10


class TestRanks:
    async def test_followed_last_and_pinned_never(self, opened, origin, publish):
        pinned, followed, plain = publish("pinned", 6), publish("followed", 6), publish("plain", 6)
        new = publish("new", 40)
        ranks = {pinned: PINNED, followed: FOLLOWED}
        async with opened(quota_bytes=20 * PAGE, rank=lambda path: ranks.get(path, ORDINARY)) as cached:
            for path in (pinned, followed, plain):
                await read_all(cached, path)
            head = await cached.head(new)
            extents = await all_extents(cached, head)
            await cached.read(head, extents[:6])
            assert [cached.state(p).cached_bytes // PAGE for p in (pinned, followed, plain)] == [6, 6, 0]
            await cached.read(head, extents[6:18])
            assert cached.state(followed).cached_bytes < 6 * PAGE
            assert cached.state(pinned).complete
            await cached.read(head, extents[18:36])
            assert cached.state(pinned).complete
            assert cached.stats.passed_through == 18
            assert cached.stats.cached_bytes <= 20 * PAGE
            assert await cached.drop(pinned) == 6 * PAGE

    async def test_when_nothing_may_go_it_passes_through(self, opened, origin, publish):
        path, other = publish("a", 9), publish("b", 9)
        async with opened(quota_bytes=10 * PAGE, rank=lambda path: PINNED) as cached:
            await read_all(cached, path)
            assert await read_all(cached, other) == origin.data[other]
            assert (cached.stats.evicted, cached.stats.passed_through) == (0, 9)


class TestManySmallVersions:
    async def test_a_round_looks_at_those_that_go(self, opened, origin, publish, monkeypatch):
        looked, ranked = Counter(), Counter()
        numbers = Mirror.numbers

        def count(mirror):
            looked[mirror] += 1
            return numbers(mirror)

        monkeypatch.setattr(Mirror, "numbers", count)
        paths = [publish(f"{n}", 1) for n in range(300)]

        def rank(path):
            ranked[path] += 1
            return ORDINARY

        async with opened(quota_bytes=100 * PAGE, rank=rank) as cached:
            for path in paths:
                await read_all(cached, path)
                await read_all(cached, paths[0])  # this one stays
            assert cached.stats.evicted > 150
            assert (await cached.head(paths[0]), cached.state(paths[0]).complete)[1]
            looked_while_writing = 300  # whether all of it is here is found out with each write
            assert looked.total() - looked_while_writing < 1.5 * cached.stats.evicted
            assert ranked.total() < 1.5 * cached.stats.evicted

    async def test_followed_ones_that_are_older_do_not_hide_the_others(self, opened, publish):
        followed, plain = [publish(f"f{n}", 1) for n in range(30)], [publish(f"p{n}", 1) for n in range(60)]
        rank = lambda path: FOLLOWED if path in followed else ORDINARY  # noqa: E731
        async with opened(quota_bytes=50 * PAGE, rank=rank) as cached:
            for path in followed + plain:
                await read_all(cached, path)
            assert all(cached.state(path).complete for path in followed)
            assert cached.state(plain[-1]).complete
            assert cached.stats.evicted_bytes >= 40 * PAGE

    async def test_the_same_order_as_if_all_were_looked_at(self, opened, origin, publish):
        """What goes is what was used least recently, also where bounds are from long ago."""
        chance = random.Random(8)
        paths = [publish(f"{n}", 3) for n in range(40)]
        used = {}
        async with opened(quota_bytes=60 * PAGE) as cached:
            for step in range(400):
                path = chance.choice(paths)
                head = await cached.head(path)
                extent = chance.choice(await all_extents(cached, head))
                evicted = cached.stats.evicted
                before = here(cached, paths)
                await cached.read(head, [extent])
                used[path, extent.number] = step
                if cached.stats.evicted > evicted:
                    after = here(cached, paths)
                    gone = {used[key] for key in before - after}
                    assert max(gone) < min(used[key] for key in after)
            assert cached.stats.evicted > 50


def here(cached, paths):
    versions = [version for path in paths for version in cached._store.all_of(path)]
    return {(version.path, number) for version in versions for number in version.mirror.numbers().tolist()}


class TestWithoutHoles:
    async def test_whole_versions_go(self, opened, origin, publish, monkeypatch, mirror_files, until):
        monkeypatch.setattr(quota, "can_punch", lambda directory: False)
        paths = [publish(name, 4) for name in "abc"]
        async with opened(quota_bytes=10 * PAGE) as cached:
            for path in paths:
                assert await read_all(cached, path) == origin.data[path]
            assert [cached.state(path).cached_bytes // PAGE for path in paths] == [0, 4, 4]
            assert len(mirror_files()) == 4


class TestFreeDisk:
    async def test_what_is_old_goes_and_then_it_passes_through(self, opened, origin, publish, monkeypatch):
        free = 30 * PAGE
        usage = lambda directory: SimpleNamespace(free=free - cached.stats.cached_bytes)  # noqa: E731
        monkeypatch.setattr(room.shutil, "disk_usage", usage)
        monkeypatch.setattr(room, "STAT_S", 0)
        paths = [publish(name, 8) for name in "abc"]
        async with opened(min_free_bytes=10 * PAGE) as cached:
            for path in paths:
                assert await read_all(cached, path) == origin.data[path]
                assert free - cached.stats.cached_bytes >= 10 * PAGE
            assert cached.state(paths[2]).complete
            assert cached.stats.evicted > 0
            free = 5 * PAGE
            new = publish("new", 8)
            assert await read_all(cached, new) == origin.data[new]
            assert cached.stats.cached_bytes == 0
            assert cached.stats.passed_through == 8
