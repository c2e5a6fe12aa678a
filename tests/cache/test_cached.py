import asyncio
import errno
import logging
import os
import random
import shutil
import time
from contextlib import aclosing

import pytest

from caterva2.cache import mirror as mirror_module
from caterva2.errors import Changed, Corrupt, IntegrityError, NotFound, Unavailable
from caterva2.model.manifest import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents


async def read_all(cached, path):
    head = await cached.head(path)
    return b"".join(await cached.read(head, await all_extents(cached, head)))


async def until(condition, within_s=5.0):
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.001)


def mirror_files(tmp_path):
    return sorted((tmp_path / "cache" / "mirrors").iterdir())


def disk_bytes(tmp_path):
    return sum(file.stat().st_blocks * 512 for file in mirror_files(tmp_path) if file.suffix == ".data")


class TestWarm:
    async def test_asks_nobody(self, cached, origin, path, data):
        assert await read_all(cached, path) == data
        asked = dict(origin.calls)
        assert await read_all(cached, path) == data
        head = await cached.head(path)
        assert b"".join([piece async for piece in cached.stream(head, 0, head.size)]) == data
        assert dict(origin.calls) == asked
        assert cached.stats.misses == 21

    async def test_asks_nobody_after_a_restart_without_the_origin(self, opened, origin, path, data):
        async with opened() as cached:
            assert await read_all(cached, path) == data
        origin.calls.clear()
        async with opened(source=None) as cached:
            assert cached.state(path).complete
            assert await read_all(cached, path) == data
            assert await read_all(cached, path) == data
            assert (cached.stats.verified, cached.stats.misses, cached.stats.rejected) == (21, 0, 0)
        assert origin.calls.total() == 0

    async def test_only_what_is_missing_is_fetched(self, cached, origin, path, data):
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        await cached.read(head, extents[3:6])
        pieces = await cached.read(head, extents[2:8])
        assert b"".join(pieces) == data[2 * PAGE : 8 * PAGE]
        assert origin.calls["read"] == 2
        assert set(origin.reads.values()) == {1}

    async def test_the_same_extent_twice_in_a_batch(self, cached, origin, path, data):
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        for _ in range(2):
            pieces = await cached.read(head, [extents[1], extents[0], extents[1]])
            assert pieces == [data[PAGE : 2 * PAGE], data[:PAGE], data[PAGE : 2 * PAGE]]
        assert set(origin.reads.values()) == {1}


class TestFrames:
    @pytest.fixture(params=["a.b2nd", "b.b2frame"])
    def frame(self, request, origin, array_bytes, frame_bytes):
        path = DatasetPath("foo", request.param)
        origin.publish(path, array_bytes if request.param == "a.b2nd" else frame_bytes)
        return path

    async def test_any_range_streams(self, cached, origin, frame):
        data = origin.data[frame]
        head = await cached.head(frame)
        chance = random.Random(8)
        spans = [sorted(chance.randrange(len(data) + 1) for _ in range(2)) for _ in range(40)]
        for start, stop in [(0, len(data)), *spans]:
            assert b"".join([piece async for piece in cached.stream(head, start, stop)]) == data[start:stop]
        assert set(origin.reads.values()) == {1}

    async def test_a_small_range_fetches_little(self, cached, origin, frame):
        head = await cached.head(frame)
        middle = head.size // 3
        pieces = [piece async for piece in cached.stream(head, middle, middle + 10)]
        assert b"".join(pieces) == origin.data[frame][middle : middle + 10]
        assert origin.bytes_read < head.size / 4

    async def test_filled_it_is_the_file(self, cached, origin, frame, tmp_path):
        await cached.fill(await cached.head(frame))
        state = cached.state(frame)
        assert (state.complete, state.cached_bytes) == (True, len(origin.data[frame]))
        (data_file,) = [file for file in mirror_files(tmp_path) if file.suffix == ".data"]
        assert data_file.read_bytes() == origin.data[frame]
        assert set(origin.reads.values()) == {1}


class TestOneFetch:
    async def test_fifty_readers_at_once(self, cached, origin, path, data):
        origin.gate.clear()
        readers = [asyncio.create_task(read_all(cached, path)) for _ in range(50)]
        await until(lambda: origin.calls["read"])
        origin.gate.set()
        assert await asyncio.gather(*readers) == [data] * 50
        assert set(origin.reads.values()) == {1}
        assert (origin.calls["head"], origin.calls["pages"], origin.calls["read"]) == (1, 1, 1)

    async def test_overlapping_readers(self, cached, origin, path, data):
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        origin.gate.clear()
        spans = [(n, n + 6) for n in range(15)]
        readers = [asyncio.create_task(cached.read(head, extents[a:b])) for a, b in spans]
        await until(lambda: origin.calls["read"] == 15)
        origin.gate.set()
        for (first, last), pieces in zip(spans, await asyncio.gather(*readers), strict=True):
            assert b"".join(pieces) == data[first * PAGE : last * PAGE]
        assert set(origin.reads.values()) == {1}

    async def test_a_cancelled_reader_does_not_harm_the_others(self, cached, origin, path, data):
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        origin.gate.clear()
        readers = [asyncio.create_task(cached.read(head, extents)) for _ in range(3)]
        await until(lambda: origin.calls["read"])
        readers[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await readers[0]
        origin.gate.set()
        for pieces in await asyncio.gather(*readers[1:]):
            assert b"".join(pieces) == data
        assert set(origin.reads.values()) == {1}

    async def test_when_all_have_left_the_fetch_ends(self, cached, origin, path, data):
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        origin.gate.clear()
        reader = asyncio.create_task(cached.read(head, extents))
        await until(lambda: origin.calls["read"])
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        origin.gate.set()
        assert cached.state(path).cached_bytes == 0
        assert b"".join(await cached.read(head, extents)) == data
        assert origin.calls["read"] == 2

    async def test_cancelled_at_any_moment_the_count_stays_right(self, opened, origin, path, data, tmp_path):
        async with opened() as cached:
            head = await cached.head(path)
            extents = await all_extents(cached, head)
            for steps in range(40):
                reader = asyncio.create_task(cached.read(head, extents[steps % 21 :]))
                for _ in range(steps):
                    await asyncio.sleep(0)
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            assert b"".join(await cached.read(head, extents)) == data
            assert cached.state(path).cached_bytes == cached.stats.cached_bytes == len(data)
            assert cached.state(path).complete

    async def test_wrong_bytes_of_one_extent_do_not_fail_readers_of_another(self, cached, origin, path, data):
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        origin.gate.clear()
        origin.failures.append(IntegrityError(str(path), "there", extents[0].offset, extents[0].size))
        both = asyncio.create_task(cached.read(head, extents[:2]))
        await until(lambda: origin.calls["read"])
        one = asyncio.create_task(cached.read(head, extents[1:2]))
        await asyncio.sleep(0)
        origin.gate.set()
        with pytest.raises(IntegrityError):
            await both
        assert await one == [data[PAGE : 2 * PAGE]]


class TestVersions:
    async def test_the_new_one_is_served_and_the_old_removed(self, cached, origin, path, data, tmp_path):
        await read_all(cached, path)
        old = await cached.head(path)
        new = origin.publish(path, data[::-1])
        assert (await cached.head(path)).etag == new.etag
        assert await read_all(cached, path) == data[::-1]
        with pytest.raises(Changed):
            await cached.head(path, old.etag)
        await until(lambda: len(mirror_files(tmp_path)) == 2)
        assert cached.stats.cached_bytes == len(data)
        assert cached.stats.versions == 1

    async def test_an_old_one_is_served_while_it_is_here(self, cached, origin, path, data):
        await read_all(cached, path)
        old = await cached.head(path)
        extents = await all_extents(cached, old)
        origin.publish(path, b"new")
        # nobody has asked for the new one yet
        assert (await cached.head(path, old.etag)).etag == old.etag
        assert b"".join(await cached.read(old, extents)) == data

    async def test_what_is_missing_of_an_old_one_is_changed(self, cached, origin, path, data):
        old = await cached.head(path)
        extents = await all_extents(cached, old)
        await cached.read(old, extents[:1])
        new = origin.publish(path, b"new")
        calls = origin.calls["read"]
        assert await cached.read(old, extents[:1]) == [data[:PAGE]]
        with pytest.raises(Changed) as caught:
            await cached.read(old, extents[:2])
        assert (caught.value.wanted_etag, caught.value.current_etag) == (old.etag, new.etag)
        assert origin.calls["read"] == calls

    async def test_a_reader_inside_keeps_the_old_one(self, cached, origin, path, data, tmp_path):
        await cached.fill(await cached.head(path))
        old = await cached.head(path)
        async with aclosing(cached.stream(old, 0, old.size)) as stream:
            pieces = [await anext(stream)]
            origin.publish(path, data[::-1])
            assert await read_all(cached, path) == data[::-1]
            pieces += [piece async for piece in stream]
        assert b"".join(pieces) == data
        await until(lambda: len(mirror_files(tmp_path)) == 2)

    async def test_the_origin_is_ahead_of_our_news(self, opened, origin, path, data):
        behind = origin.entry(path)
        new = origin.publish(path, b"new")
        news = {"now": behind}
        async with opened() as cached:
            cached._current = lambda path: news["now"]
            reader = asyncio.create_task(cached.head(path))
            await until(lambda: origin.calls["head"])
            news["now"] = origin.entry(path)
            assert (await reader).etag == new.etag

    async def test_news_that_never_come(self, opened, origin, path):
        behind = origin.entry(path)
        origin.publish(path, b"new")
        async with opened() as cached:
            cached._current = lambda path: behind
            with pytest.raises(Changed):
                async with asyncio.timeout(5):
                    await cached.head(path)

    async def test_withdrawn(self, cached, origin, path):
        await read_all(cached, path)
        origin.withdraw(path)
        with pytest.raises(NotFound):
            await cached.head(path)
        assert await cached.drop(path) > 0
        assert cached.stats.cached_bytes == 0


class TestOffline:
    async def test_what_is_here_is_served_and_the_rest_is_unavailable(self, opened, origin, path, data):
        async with opened() as cached:
            head = await cached.head(path)
            extents = await all_extents(cached, head)
            await cached.read(head, extents[:4])

        class Dead:
            async def read(self, head, extents):
                raise Unavailable("gone")

        async with opened(source=Dead()) as cached:
            head = await cached.head(path)
            extents = await all_extents(cached, head)
            assert b"".join(await cached.read(head, extents[:4])) == data[: 4 * PAGE]
            with pytest.raises(Unavailable):
                await cached.read(head, extents[:5])
            with pytest.raises(Unavailable):
                async for _ in cached.stream(head, 0, head.size):
                    pass


class TestDamage:
    async def test_a_flipped_byte_is_found_after_a_restart(
        self, opened, origin, path, data, tmp_path, caplog
    ):
        async with opened() as cached:
            await read_all(cached, path)
        (data_file,) = [file for file in mirror_files(tmp_path) if file.suffix == ".data"]
        where = 7 * PAGE + 5
        with data_file.open("r+b") as file:
            file.seek(where)
            file.write(bytes([data[where] ^ 1]))
        origin.reads.clear()
        async with opened() as cached:
            with caplog.at_level(logging.WARNING):
                assert await read_all(cached, path) == data
            assert cached.stats.rejected == 1
            assert [number for _, _, number in origin.reads] == [4 + 7 * 2]
            assert str(path) in caplog.text
            assert cached.state(path).complete
        assert data_file.read_bytes() == data

    async def test_orphans_are_removed(self, opened, tmp_path):
        mirrors = tmp_path / "cache" / "mirrors"
        mirrors.mkdir(parents=True)
        (mirrors / "left.data").write_bytes(b"x")
        (mirrors / "left.map").write_bytes(b"x")
        async with opened():
            assert mirror_files(tmp_path) == []

    async def test_a_version_whose_file_is_gone_is_fetched_again(self, opened, path, data, tmp_path):
        async with opened() as cached:
            await read_all(cached, path)
        for file in mirror_files(tmp_path):
            file.unlink()
        async with opened() as cached:
            assert cached.state(path).cached_bytes == cached.stats.cached_bytes == 0
            assert await read_all(cached, path) == data

    async def test_what_was_not_closed_is_counted_again(self, opened, path, data, tmp_path):
        async with opened() as cached:
            head = await cached.head(path)
            await cached.read(head, (await all_extents(cached, head))[::2])
            expected = cached.stats.cached_bytes
            # as after kill -9: nothing more is written
            shutil.copytree(tmp_path / "cache", tmp_path / "copy")
        async with opened(directory=tmp_path / "copy") as cached:
            assert cached.stats.cached_bytes == cached.state(path).cached_bytes == expected
            assert await read_all(cached, path) == data

    async def test_a_damaged_head_is_fetched_again(self, opened, path, data, tmp_path):
        import sqlite3
        from contextlib import closing

        async with opened() as cached:
            await read_all(cached, path)
        with closing(sqlite3.connect(tmp_path / "cache" / "index.sqlite")) as connection, connection:
            connection.execute("UPDATE versions SET head = X'00'")
        async with opened() as cached:
            assert await read_all(cached, path) == data


class TestDiskFailure:
    async def test_full_disk(self, opened, path, data, monkeypatch, caplog):
        full = True

        def pwrite(fd, piece, offset):
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return os.pwrite(fd, piece, offset)

        monkeypatch.setattr(mirror_module, "_pwrite_once", pwrite)
        async with opened() as cached:
            with caplog.at_level(logging.WARNING):
                assert await read_all(cached, path) == data
                assert await read_all(cached, path) == data
            assert cached.stats.degraded
            assert cached.state(path).cached_bytes == cached.stats.cached_bytes == 0
            assert caplog.text.count("No space left") == 1
            full = False
            assert await read_all(cached, path) == data
            assert not cached.stats.degraded
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


class TestQuota:
    async def test_the_least_recently_used_goes_first(self, opened, origin, tmp_path):
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
            assert cached.stats.evicted == 2
            await until(lambda: len(mirror_files(tmp_path)) == 6)
            assert disk_bytes(tmp_path) <= quota
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
            assert cached.stats.evicted == 1
            assert cached.state(other).complete

    async def test_one_that_is_larger_than_the_quota(self, opened, path, data):
        async with opened(quota_bytes=5 * PAGE) as cached:
            head = await cached.head(path)
            for extent in await all_extents(cached, head):
                assert await cached.read(head, [extent]) == [data[extent.offset : extent.stop]]
                assert cached.stats.cached_bytes <= 5 * PAGE
            assert cached.stats.passed_through == 16
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
            assert cached.stats.evicted == 1


class TestDropAndFill:
    async def test_drop(self, cached, origin, path, data, tmp_path):
        await read_all(cached, path)
        assert await cached.drop(path) == len(data)
        assert await cached.drop(path) == 0
        assert cached.state(path).cached_bytes == cached.stats.cached_bytes == 0
        await until(lambda: mirror_files(tmp_path) == [])
        assert await read_all(cached, path) == data
        assert set(origin.reads.values()) == {2}

    async def test_drop_while_being_read(self, cached, path, data, tmp_path):
        head = await cached.head(path)
        await cached.fill(head)
        async with aclosing(cached.stream(head, 0, head.size)) as stream:
            pieces = [await anext(stream)]
            assert await cached.drop(path) == len(data)
            assert cached.state(path).cached_bytes == 0
            pieces += [piece async for piece in stream]
        assert b"".join(pieces) == data
        assert await read_all(cached, path) == data
        await until(lambda: len(mirror_files(tmp_path)) == 2)
        assert cached.stats.cached_bytes == len(data)

    async def test_fill_goes_on_where_it_was(self, cached, origin, path, data):
        head = await cached.head(path)
        await cached.read(head, (await all_extents(cached, head))[:10])
        await cached.fill(head)
        assert set(origin.reads.values()) == {1}
        await cached.fill(head)
        assert origin.reads.total() == 21
        assert cached.state(path).complete

    async def test_fill_checks_what_is_from_before_the_start(self, opened, path, data, tmp_path):
        async with opened() as cached:
            await cached.fill(await cached.head(path))
        (data_file,) = [file for file in mirror_files(tmp_path) if file.suffix == ".data"]
        with data_file.open("r+b") as file:
            file.write(bytes([data[0] ^ 1]))
        async with opened() as cached:
            await cached.fill(await cached.head(path))
            assert cached.stats.rejected == 1
            assert cached.state(path).complete
        assert data_file.read_bytes() == data

    async def test_fill_that_fails(self, cached, origin, path):
        origin.failures.append(Unavailable("gone"))
        with pytest.raises(Unavailable):
            await cached.fill(await cached.head(path))
        await cached.fill(await cached.head(path))
        assert cached.state(path).complete

    async def test_state(self, cached, path):
        assert (cached.state(path).cached_bytes, cached.state(path).last_used) == (0, None)
        before = time.time()
        head = await cached.head(path)
        await cached.read(head, (await all_extents(cached, head))[:2])
        state = cached.state(path)
        assert (state.etag, state.cached_bytes, state.complete) == (head.etag, 2 * PAGE, False)
        assert before <= state.last_used <= time.time()
        with pytest.raises(NotFound):
            cached.state(DatasetPath("foo", "nothing"))

    async def test_an_empty_file_is_complete(self, cached, origin):
        path = DatasetPath("foo", "empty")
        origin.publish(path, b"")
        await cached.fill(await cached.head(path))
        assert cached.state(path).complete


class TestStream:
    async def test_little_is_read_ahead(self, cached, origin):
        path = DatasetPath("foo", "large")
        data = random.Random(9).randbytes(160 * PAGE)
        origin.publish(path, data)
        head = await cached.head(path)
        async with aclosing(cached.stream(head, 0, head.size)) as stream:
            sent = len(await anext(stream))
            await until(lambda: origin.bytes_read == 8 * 2**20)
            async for piece in stream:
                sent += len(piece)
                assert origin.bytes_read - sent <= 8 * 2**20
        assert sent == len(data)

    async def test_a_manifest_that_leaves_bytes_out(self, cached, origin, path, monkeypatch):
        head = await cached.head(path)
        (page,) = await cached.pages(head, [0])
        monkeypatch.setattr(
            type(page), "chunk_extents", lambda page, n: [page.chunk_head(n)] if n != 3 else []
        )
        with pytest.raises(Corrupt, match=str(3 * PAGE)):
            async for _ in cached.stream(head, 0, head.size):
                pass
