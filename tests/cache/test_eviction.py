import numpy as np
import pytest

from caterva2.cache.eviction import Clock, Queue, choose, look
from caterva2.cache.mirror import Mirror
from caterva2.cache.pool import MirrorPool
from caterva2.cache.version import Version
from caterva2.model.extents import Extent, digest
from caterva2.model.path import DatasetPath


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
