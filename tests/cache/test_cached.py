import asyncio
import time
from contextlib import aclosing

import blosc2
import pytest

from caterva2.errors import Changed, IntegrityError, NotFound, Unavailable
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents, read_all
from caterva2.testing.waiting import until


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


class TestOneFetch:
    async def test_fifty_readers_at_once(self, cached, origin, path, data, until):
        origin.gate.clear()
        readers = [asyncio.create_task(read_all(cached, path)) for _ in range(50)]
        await until(lambda: origin.calls["read"])
        origin.gate.set()
        assert await asyncio.gather(*readers) == [data] * 50
        assert set(origin.reads.values()) == {1}
        assert (origin.calls["head"], origin.calls["pages"], origin.calls["read"]) == (1, 1, 1)

    async def test_overlapping_readers(self, cached, origin, path, data, until):
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

    async def test_a_cancelled_reader_does_not_harm_the_others(self, cached, origin, path, data, until):
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

    async def test_when_all_have_left_the_fetch_ends(self, cached, origin, path, data, until):
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

    async def test_cancelled_at_any_moment_the_count_stays_right(self, opened, origin, path, data):
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
            await until(lambda: cached.state(path).complete)  # found out behind the last write

    async def test_wrong_bytes_of_one_extent_do_not_fail_readers_of_another(
        self, cached, origin, path, data, until
    ):
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
    async def test_the_new_one_is_served_and_the_old_removed_once_it_is_complete(
        self, cached, origin, path, data, mirror_files, until
    ):
        await read_all(cached, path)
        old = await cached.head(path)
        new = origin.publish(path, data[::-1])
        assert (await cached.head(path)).etag == new.etag
        assert (await cached.head(path, old.etag)).etag == old.etag
        assert await read_all(cached, path) == data[::-1]
        await until(lambda: cached.state(path).complete)
        with pytest.raises(Changed):
            await cached.head(path, old.etag)
        await until(lambda: len(mirror_files()) == 2)
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

    async def test_a_reader_inside_keeps_the_old_one(self, cached, origin, path, data, mirror_files, until):
        await cached.fill(await cached.head(path))
        old = await cached.head(path)
        async with aclosing(cached.stream(old, 0, old.size)) as stream:
            pieces = [await anext(stream)]
            origin.publish(path, data[::-1])
            assert await read_all(cached, path) == data[::-1]
            pieces += [piece async for piece in stream]
        assert b"".join(pieces) == data
        await until(lambda: len(mirror_files()) == 2)

    async def test_the_origin_is_ahead_of_our_news(self, opened, origin, path, data, until):
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


class TestDropAndFill:
    async def test_drop(self, cached, origin, path, data, mirror_files, until):
        await read_all(cached, path)
        assert await cached.drop(path) == len(data)
        assert await cached.drop(path) == 0
        assert cached.state(path).cached_bytes == cached.stats.cached_bytes == 0
        await until(lambda: mirror_files() == [])
        assert await read_all(cached, path) == data
        assert set(origin.reads.values()) == {2}

    async def test_drop_while_being_read(self, cached, path, data, mirror_files, until):
        head = await cached.head(path)
        await cached.fill(head)
        async with aclosing(cached.stream(head, 0, head.size)) as stream:
            pieces = [await anext(stream)]
            assert await cached.drop(path) == len(data)
            assert cached.state(path).cached_bytes == 0
            pieces += [piece async for piece in stream]
        assert b"".join(pieces) == data
        assert await read_all(cached, path) == data
        await until(lambda: len(mirror_files()) == 2)
        assert cached.stats.cached_bytes == len(data)

    async def test_fill_goes_on_where_it_was(self, cached, origin, path, data):
        head = await cached.head(path)
        await cached.read(head, (await all_extents(cached, head))[:10])
        await cached.fill(head)
        assert set(origin.reads.values()) == {1}
        await cached.fill(head)
        assert origin.reads.total() == 21
        assert cached.state(path).complete

    async def test_fill_checks_what_is_from_before_the_start(self, opened, path, data, mirror_files):
        async with opened() as cached:
            await cached.fill(await cached.head(path))
        (data_file,) = [file for file in mirror_files() if file.suffix == ".data"]
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

    async def test_what_is_nothing_but_zeros_is_complete_with_its_manifest(self, opened, origin):
        path = DatasetPath("foo", "zeros.b2nd")
        origin.publish(path, blosc2.zeros((1000, 1000), chunks=(100, 100)).to_cframe())
        async with opened() as cached:
            await cached.fill(await cached.head(path))
            assert cached.state(path).complete
        origin.failures += [Unavailable("gone")] * 9
        async with opened() as cached:
            assert cached.state(path).complete
            (page,) = await cached.pages(await cached.head(path), [0])
            assert len(page) == 100

    async def test_an_empty_file_is_complete(self, cached, origin):
        path = DatasetPath("foo", "empty")
        origin.publish(path, b"")
        await cached.fill(await cached.head(path))
        assert cached.state(path).complete
