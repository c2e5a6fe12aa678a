import errno
import logging
import os
import random
import shutil
from contextlib import aclosing

from caterva2.cache import disk, fileio
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents, read_all
from caterva2.testing.waiting import until


def disk_bytes(files):
    return sum(file.stat().st_blocks * 512 for file in files if file.suffix == ".data")


class TestDiskFailure:
    async def test_full_disk(self, opened, path, data, monkeypatch, caplog):
        full = True

        def pwrite(fd, piece, offset):
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return os.pwrite(fd, piece, offset)

        monkeypatch.setattr(fileio, "_pwrite_once", pwrite)
        monkeypatch.setattr(disk, "RECOVERED_S", 0.3)
        async with opened() as cached:
            with caplog.at_level(logging.WARNING):
                assert await read_all(cached, path) == data
                assert await read_all(cached, path) == data
            assert cached.stats.degraded
            assert cached.state(path).cached_bytes == cached.stats.cached_bytes == 0
            assert caplog.text.count("No space left") == 1
            full = False
            assert await read_all(cached, path) == data
            assert cached.stats.degraded  # one write that succeeds says little of a full disk
            await until(lambda: not cached.stats.degraded)
            assert cached.state(path).complete

    async def test_the_directory_is_deleted_under_us(self, cached, origin, path, data, tmp_path):
        head = await cached.head(path)
        shutil.rmtree(tmp_path / "cache")
        assert await read_all(cached, path) == data
        other = DatasetPath("foo", "other")
        origin.publish(other, data[::-1])
        assert await read_all(cached, other) == data[::-1]
        assert cached.stats.degraded
        assert b"".join([piece async for piece in cached.stream(head, 1, 99)]) == data[1:99]


class TestReadNow:
    async def test_gives_all_or_nothing_and_counts_as_use(self, cached, path, data):
        head = await cached.head(path)
        extents = (await all_extents(cached, head))[:2]
        await cached.read(head, extents[:1])
        store, version = cached._store, cached._store.find(path, head.etag)
        version.last_used = 0.0
        assert store.read_now(version, extents[1:]) is None
        assert version.last_used == 0.0
        assert store.read_now(version, extents[:1]) == [data[:PAGE]]
        assert version.last_used > 0.0
        assert version.ticks[extents[0].number] > version.ticks[extents[1].number]

    async def test_nothing_that_is_to_be_checked(self, opened, path, data):
        async with opened() as cached:
            await read_all(cached, path)
        async with opened() as cached:
            head = await cached.head(path)
            extents = (await all_extents(cached, head))[:1]
            version = cached._store.find(path, head.etag)
            assert cached._store.read_now(version, extents) is None
            assert await cached.read(head, extents) == [data[:PAGE]]
            assert cached._store.read_now(version, extents) == [data[:PAGE]]


class TestQuota:
    async def test_the_least_recently_used_goes_first(self, opened, origin, tmp_path, mirror_files, until):
        paths = [DatasetPath("foo", f"{n}.bin") for n in range(6)]
        for path in paths:
            origin.publish(path, random.Random(path.name).randbytes(4 * PAGE))
        quota = 17 * PAGE
        async with opened(quota_bytes=quota) as cached:
            for path in paths[:4]:
                await read_all(cached, path)
                assert cached.stats.cached_bytes <= quota
            await read_all(cached, paths[0])
            assert cached.stats.evicted == 0
            await read_all(cached, paths[4])
            assert [cached.state(path).complete for path in paths[:5]] == [True, False, False, True, True]
            assert cached.stats.cached_bytes <= quota
            assert cached.stats.evicted == 5
            assert [cached.state(path).cached_bytes // PAGE for path in paths[:5]] == [4, 0, 3, 4, 4]
            await until(lambda: len(mirror_files()) == 8)
            assert disk_bytes(mirror_files()) <= quota
            for path in paths:
                assert await read_all(cached, path) == origin.data[path]

    async def test_never_one_with_readers_inside(self, opened, origin, path, data):
        other = DatasetPath("foo", "other")
        origin.publish(other, data[::-1])
        async with opened(quota_bytes=len(data) + PAGE) as cached:
            await cached.fill(await cached.head(path))
            head = await cached.head(path)
            async with aclosing(cached.stream(head, 0, head.size)) as stream:
                first = await anext(stream)
                assert await read_all(cached, other) == data[::-1]
                assert cached.stats.evicted == 0
                assert cached.stats.cached_bytes <= len(data) + PAGE
                assert first + b"".join([piece async for piece in stream]) == data
            assert await read_all(cached, other) == data[::-1]
            assert cached.stats.evicted == 21
            assert cached.state(other).complete

    async def test_one_that_is_larger_than_the_quota(self, opened, path, data):
        async with opened(quota_bytes=5 * PAGE) as cached:
            head = await cached.head(path)
            for extent in await all_extents(cached, head):
                assert await cached.read(head, [extent]) == [data[extent.offset : extent.stop]]
                assert cached.stats.cached_bytes <= 5 * PAGE
            assert cached.stats.passed_through == 0
            await cached.fill(head)
            assert not cached.state(path).complete
            assert await read_all(cached, path) == data

    async def test_kept_over_a_restart(self, opened, origin, path, data):
        async with opened(quota_bytes=30 * PAGE) as cached:
            await read_all(cached, path)
            used = cached.state(path).last_used
        other = DatasetPath("foo", "other")
        origin.publish(other, data)
        async with opened(quota_bytes=30 * PAGE) as cached:
            assert cached.state(path).last_used == used
            await read_all(cached, other)
            assert cached.stats.cached_bytes <= 30 * PAGE
            assert cached.state(other).complete
            assert 0 < cached.state(path).cached_bytes < len(data)
