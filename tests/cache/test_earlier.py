"""What a new version has in common with an earlier one that is here is not fetched again."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import blosc2
import numpy as np
import pytest

from caterva2.cache import contents
from caterva2.errors import Changed
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents, read_all

ARRAY = DatasetPath("foo", "a.b2nd")
SHAPE, CHUNKS, BLOCKS = (2400, 400), (400, 400), (50, 200)
"""Chunks of 1.2 MB that hardly compress, each of 16 blocks."""


def stored(values):
    return blosc2.asarray(values, chunks=CHUNKS, blocks=BLOCKS, cparams={"nthreads": 1}).to_cframe()


@pytest.fixture(scope="session")
def values():
    return np.random.default_rng(8).random(SHAPE)


@pytest.fixture(scope="session")
def array(values):
    return stored(values)


def read_of(origin, path):
    """How many bytes the origin gave of the current version of a dataset."""

    async def count():
        head = await origin.head(path)
        sizes = {extent.number: extent.size for extent in await all_extents(origin, head)}
        found = origin.reads.items()
        return sum(n * sizes[number] for (name, etag, number), n in found if etag == head.etag)

    return count()


async def followed(cached, origin, path, data):
    """Publish a new version, refresh it, and return the bytes that the origin gave."""
    origin.publish(path, data)
    assert await cached.refresh(path)
    return await read_of(origin, path)


class TestReading:
    async def test_the_same_bytes_elsewhere_are_not_fetched(self, cached, origin, path, data):
        await read_all(cached, path)
        origin.publish(path, random.Random(1).randbytes(PAGE) + data)
        assert await read_all(cached, path) == origin.data[path]
        # the first page is new, and what was the end of the file was shorter than a page
        assert await read_of(origin, path) == PAGE
        assert cached.stats.taken_over == 21
        assert cached.stats.taken_over_bytes == len(data)

    async def test_only_what_is_asked_for_is_taken_over(self, cached, origin, path, data):
        await read_all(cached, path)
        origin.publish(path, data + b"more")
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        await cached.read(head, extents[3:5])
        assert cached.stats.taken_over == 2
        assert cached.state(path).cached_bytes == 2 * PAGE

    async def test_whoever_asks_at_once_takes_it_over_once(self, cached, origin, path, data):
        await read_all(cached, path)
        origin.publish(path, data + b"more")
        head = await cached.head(path)
        extents = await all_extents(cached, head)
        await asyncio.gather(*(cached.read(head, extents[:20]) for _ in range(10)))
        assert cached.stats.taken_over == 20
        assert await read_of(origin, path) == 0

    async def test_what_was_not_here_is_fetched(self, cached, origin, path, data):
        old = await cached.head(path)
        await cached.read(old, (await all_extents(cached, old))[:7])
        origin.publish(path, data + b"more")
        assert await read_all(cached, path) == data + b"more"
        assert cached.stats.taken_over == 7
        assert await read_of(origin, path) == len(data) + 4 - 7 * PAGE

    async def test_a_byte_that_flipped_in_the_earlier_one_is_not_taken_over(self, opened, origin, path, data):
        async with opened() as cached:
            await read_all(cached, path)
            (version,) = cached._store.all_of(path)
            file = version.mirror.data_file
        with file.open("r+b") as mirror:
            mirror.seek(5 * PAGE + 17)
            mirror.write(bytes([data[5 * PAGE + 17] ^ 1]))
        async with opened() as cached:
            origin.publish(path, data + b"more")
            assert await read_all(cached, path) == data + b"more"
            assert cached.stats.rejected == 1
            assert await read_of(origin, path) == PAGE + (len(data) + 4) % PAGE

    async def test_it_is_found_after_a_restart(self, opened, origin, path, data):
        async with opened() as cached:
            await read_all(cached, path)
        origin.publish(path, b"before" + bytes(PAGE - 6) + data)
        async with opened() as cached:
            assert await read_all(cached, path) == origin.data[path]
        assert await read_of(origin, path) == PAGE

    async def test_no_more_is_looked_for_than_memory_allows(self, cached, origin, path, data, monkeypatch):
        monkeypatch.setattr(contents, "MAX_COMPARED", 6)
        await read_all(cached, path)
        origin.publish(path, data + b"more")
        assert await read_all(cached, path) == data + b"more"
        assert cached.stats.taken_over == 6

    async def test_nothing_in_common(self, cached, origin, path, data):
        await read_all(cached, path)
        origin.publish(path, random.Random(2).randbytes(len(data)))
        assert await read_all(cached, path) == origin.data[path]
        assert cached.stats.taken_over == 0


class TestManifest:
    async def test_what_is_known_goes_along_with_the_request(self, cached, origin, array, values):
        origin.publish(ARRAY, array)
        await read_all(cached, ARRAY)
        changed = values.copy()
        changed[0, 0] = 5
        head = origin.publish(ARRAY, stored(changed))
        seen = []
        pages = origin.pages

        async def watched(head, numbers, known=None):
            seen.append((list(numbers), dict(known)))
            return await pages(head, numbers, known)

        origin.pages = watched
        assert await read_all(cached, ARRAY) == origin.data[ARRAY]
        ((numbers, known),) = seen
        assert numbers == list(known) == list(range(head.npages))

    async def test_pages_about_other_chunks_are_no_help(self, cached, origin, path):
        one, three = bytes(range(256)) * (PAGE // 256 * 130), b"x" * (PAGE * 300)
        origin.publish(path, one)
        await read_all(cached, path)
        new = origin.publish(path, three)
        head = await cached.head(path)
        version = await cached._version(head)
        known = cached._earlier.pages(version, head, range(new.npages))
        assert list(known) == [0]  # the second had two chunks and has 128 now


class TestKeeping:
    async def test_the_last_and_the_largest_stay(self, cached, origin, path, data):
        await read_all(cached, path)
        first = await cached.head(path)
        etags = [first.etag]
        for n in range(1, 5):
            origin.publish(path, data[:-n])
            head = await cached.head(path)
            etags.append(head.etag)
            await cached.read(head, (await all_extents(cached, head))[: n + 1])
        assert {state.etag for state in cached.states()} == {first.etag, etags[-2], etags[-1]}
        assert [state.current for state in cached.states()].count(True) == 1

    async def test_versions_of_which_nothing_is_here_go_at_once(self, cached, origin, path, data):
        for n in range(1, 5):
            origin.publish(path, data[:-n])
            await cached.head(path)
        assert len(cached.states()) == 1

    async def test_all_others_go_when_one_is_complete(self, cached, origin, path, data, until, mirror_files):
        await read_all(cached, path)
        origin.publish(path, data + b"more")
        await cached.head(path)
        assert len(cached.states()) == 2
        await read_all(cached, path)
        await until(lambda: len(mirror_files()) == 2)
        assert cached.stats.cached_bytes == len(data) + 4

    async def test_an_earlier_one_is_read_while_it_is_here(self, cached, origin, path, data):
        await read_all(cached, path)
        old = await cached.head(path)
        extents = await all_extents(cached, old)
        origin.publish(path, data[::-1])
        await cached.head(path)
        assert b"".join(await cached.read(old, extents)) == data
        assert (await cached.head(path, old.etag)).etag == old.etag
        await cached.drop(path)
        with pytest.raises(Changed):
            await cached.head(path, old.etag)

    async def test_earlier_ones_give_way_like_all_others(self, opened, origin, path, data):
        """Whatever the rank of the dataset."""
        async with opened(quota_bytes=30 * PAGE, rank=lambda path: 2) as cached:
            await read_all(cached, path)
            origin.publish(path, random.Random(3).randbytes(25 * PAGE))
            assert await read_all(cached, path) == origin.data[path]
            assert cached.state(path).complete
            assert cached.stats.cached_bytes <= 30 * PAGE

    async def test_what_is_taken_over_needs_no_room_twice(self, opened, origin, path, data):
        """Almost all of the quota is one dataset; it is touched, and nothing is fetched again."""
        async with opened(quota_bytes=len(data) + PAGE, rank=lambda path: 2) as cached:
            await read_all(cached, path)
            assert await followed(cached, origin, path, data + b"!") == (len(data) + 1) % PAGE
            assert cached.state(path).complete
            assert cached.stats.cached_bytes <= len(data) + PAGE


class TestRefresh:
    async def test_what_changed_is_fetched_and_nothing_else(self, cached, origin, array, values):
        origin.publish(ARRAY, array)
        await cached.fill(await cached.head(ARRAY))
        changed = values.copy()
        changed[450, 100] = 5
        nbytes = await followed(cached, origin, ARRAY, stored(changed))
        assert nbytes < 100_000, "one block of 80 kB, the beginning of its chunk, the index"
        assert cached.state(ARRAY).complete
        assert b"".join([p async for p in cached.stream(await cached.head(ARRAY), 0, len(array))])
        calls = origin.calls["read"]
        assert await read_all(cached, ARRAY) == origin.data[ARRAY]
        assert origin.calls["read"] == calls

    async def test_what_was_appended(self, cached, origin, array, values):
        origin.publish(ARRAY, array)
        await cached.fill(await cached.head(ARRAY))
        longer = np.concatenate([values, values[:400] + 1])
        data = stored(longer)
        nbytes = await followed(cached, origin, ARRAY, data)
        assert nbytes < (len(data) - len(array)) * 1.02
        assert cached.state(ARRAY).complete, "all was here, so all is"

    async def test_of_a_part_that_was_here_a_part_is(self, cached, origin, array, values):
        origin.publish(ARRAY, array)
        old = await cached.head(ARRAY)
        (page,) = await cached.pages(old, [0])
        some = [page.chunk_head(2), *page.chunk_blocks(2, [1, 4])]
        await cached.read(old, some)
        nbytes = await followed(cached, origin, ARRAY, stored(values + 1))
        head = await cached.head(ARRAY)
        (page,) = await cached.pages(head, [0])
        again = [page.chunk_head(2), *page.chunk_blocks(2, [1, 4])]
        assert nbytes == sum(extent.size for extent in [*again, *head.fixed])
        calls = origin.calls["read"]
        await cached.read(head, again)
        assert origin.calls["read"] == calls
        assert [state.etag for state in cached.states()] == [head.etag]

    async def test_full_is_all_of_it(self, cached, origin, array):
        origin.publish(ARRAY, array)
        assert await cached.refresh(ARRAY)
        assert not cached.state(ARRAY).complete
        assert await cached.refresh(ARRAY, full=True)
        assert cached.state(ARRAY).complete

    async def test_nothing_was_here(self, cached, origin, path, data):
        await cached.head(path)
        assert await followed(cached, origin, path, data + b"more") == 0
        assert cached.stats.cached_bytes == 0

    async def test_replaced_again_meanwhile(self, cached, origin, path, data):
        """What was here of the first is here of the third, though the second never was."""
        await read_all(cached, path)
        origin.publish(path, random.Random(4).randbytes(PAGE) + data)
        origin.gate.clear()
        second = asyncio.create_task(cached.refresh(path))
        while not origin.calls["read"] or not cached.stats.taken_over:
            await asyncio.sleep(0.001)
        third = random.Random(5).randbytes(2 * PAGE) + data
        origin.publish(path, third)
        origin.gate.set()
        await asyncio.gather(second, return_exceptions=True)  # it ends, or is told that it changed
        assert await cached.refresh(path)
        assert await read_of(origin, path) == 2 * PAGE
        assert await read_all(cached, path) == third

    async def test_no_room(self, opened, origin, path, data):
        async with opened(quota_bytes=5 * PAGE) as cached:
            head = await cached.head(path)
            await cached.read(head, (await all_extents(cached, head))[:4])
            assert await cached.refresh(path, full=True) is False
            assert cached.stats.cached_bytes <= 5 * PAGE

    async def test_a_stream_of_the_earlier_one_ends_as_it_began(self, cached, origin, path, data):
        await cached.fill(await cached.head(path))
        old = await cached.head(path)
        async with aclosing(cached.stream(old, 0, old.size)) as stream:
            pieces = [await anext(stream)]
            await followed(cached, origin, path, data + b"more")
            pieces += [piece async for piece in stream]
        assert b"".join(pieces) == data
        assert [state.size for state in cached.states()] == [len(data) + 4]
