import asyncio
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from caterva2.cache import quota
from caterva2.cache import room as room_module
from caterva2.cache.eviction import FOLLOWED, ORDINARY, PINNED, Clock, Queue, choose, look
from caterva2.cache.mirror import Mirror
from caterva2.cache.pool import MirrorPool
from caterva2.cache.room import Room
from caterva2.cache.version import Version
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.extents import Extent, digest
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


class TestQueue:
    def test_longest_ago_first_and_none_that_is_too_young(self):
        def version(name, oldest_tick, last_used):
            version = Version(1, DatasetPath("foo", name), "e", 1, 10, None, last_used=last_used)
            version.oldest_tick = oldest_tick
            return version

        a, b, c = version("a", 5, 1.0), version("b", 0, 3.0), version("c", 0, 2.0)
        queue = Queue([a, b, c], by_extent=True)
        assert [queue.pop(5), queue.pop(5), queue.pop(5)] == [c, b, None]
        assert [queue.pop(6), queue.pop(6)] == [a, None]
        queue.restart()
        assert queue.pop(1) is c
        assert Queue([a, b, c], by_extent=False).pop(1) is a


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
        monkeypatch.setattr(room_module.shutil, "disk_usage", usage)
        monkeypatch.setattr(room_module, "STAT_S", 0)
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

    def test_more_than_the_quota_never_fits(self, tmp_path):
        for quota_bytes in (0, 100):
            room = Room(tmp_path, quota_bytes, 0)
            assert room.excess(0, 101) > 0
            assert room.never(101)
        assert room.excess(0, 100) == 0
        assert room.excess(50, 60) == 20

    def test_the_file_system_is_asked_seldom(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(
            room_module.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=1 << 40)
        )
        room = Room(tmp_path, None, 1 << 20)
        for _ in range(1000):
            assert room.excess(0, 1000) == 0
            room.written(1000)
        assert len(asked) == 1
        room.written(room_module.STAT_BYTES)
        room.excess(0, 1000)
        assert len(asked) == 2


class TestChoose:
    @pytest.fixture
    def versions(self, tmp_path):
        pool = MirrorPool(tmp_path)
        versions = []
        for n in range(3):
            mirror = Mirror(pool, f"m{n}", 1000, 10)
            extents = [Extent(k, k * 100, 100, digest(b"x" * 100)) for k in range(10)]
            mirror.write([(extent, b"x" * 100) for extent in extents])
            path = DatasetPath("foo", str(n))
            versions.append(Version(n + 1, path, "e", 1, 1000, mirror, cached_bytes=1000, last_used=9.0 - n))
        yield versions
        pool.close()

    def chosen(self, versions, nbytes):
        return {choice.version.id: choice.numbers.tolist() for choice in choose(look(versions), nbytes)[0]}

    def test_untouched_versions_first(self, versions):
        clock = Clock()
        clock.touch(versions[2], [])
        versions[2].last_used = 10.0
        assert set(self.chosen(versions, 900)) == {2}
        assert set(self.chosen(versions, 1500)) == {1, 2}
        assert set(self.chosen(versions, 2500)) == {1, 2, 3}

    def test_then_by_tick_over_all_versions(self, versions):
        clock = Clock()
        for number in range(10):
            for version in versions:
                clock.touch(version, [Extent(number, 0, 1, b"")])
        assert self.chosen(versions, 700) == {1: [0, 1, 2], 2: [0, 1], 3: [0, 1]}
        assert sum(map(len, self.chosen(versions, 10**6).values())) == 30

    def test_a_clock_that_is_full_begins_anew(self, versions):
        clock = Clock()
        clock._tick = np.iinfo(np.uint32).max
        assert not clock.touch(versions[0], [])
        assert clock.touch(versions[0], [])
