import asyncio

import pytest

from caterva2.errors import Changed, NotCached, NotFound
from caterva2.model.extents import FIXED_SLOTS, Fixed
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents

from .conftest import PAGE


@pytest.fixture
async def head(cached, path):
    return await cached.head(path)


@pytest.fixture
async def extents(cached, head):
    return await all_extents(cached, head)


async def whole(source, head, start, stop):
    return b"".join([piece async for piece in source.stream(head, start, stop)])


async def test_what_is_here_is_given_and_nothing_else(cached, origin, head, extents, data):
    await cached.read(head, extents[:3])
    calls = dict(origin.calls)
    assert await cached.here.head(head.path) == head
    assert await cached.here.read(head, extents[:3]) == [data[e.offset : e.stop] for e in extents[:3]]
    await cached.here.require(head, 10, 3 * PAGE)
    assert await whole(cached.here, head, 10, 3 * PAGE - 5) == data[10 : 3 * PAGE - 5]
    for start, stop in ((0, head.size), (3 * PAGE, 3 * PAGE + 1), (3 * PAGE - 1, 3 * PAGE + 1)):
        with pytest.raises(NotCached):
            await cached.here.require(head, start, stop)
        with pytest.raises(NotCached):
            await whole(cached.here, head, start, stop)
    with pytest.raises(NotCached):
        await cached.here.read(head, extents[2:4])
    assert origin.calls == calls, "the origin is never asked"


async def test_of_an_array_blocks_and_pages(opened, origin, array_bytes, until):
    path = DatasetPath("foo", "a.b2nd")
    origin.publish(path, array_bytes)
    async with opened() as cached:
        head = await cached.head(path)
        with pytest.raises(NotCached):
            await cached.here.pages(head, [0])
        extents = await all_extents(cached, head)
        some = [extent for extent in extents if extent.number >= FIXED_SLOTS][-4:]
        await cached.read(head, some)
        assert [page.encode() for page in await cached.here.pages(head, [0])] == [
            page.encode() for page in await origin.pages(head, [0])
        ]
        with pytest.raises(NotCached):  # the index is not here: nobody knows which extents are there
            await cached.here.require(head, some[0].offset, some[0].stop)
        await until(lambda: cached.stats.misses == len(some) + 1 and not cached.in_flight)
        await cached.here.require(head, some[0].offset, some[0].stop)
        await cached.fill(head)
        await cached.here.require(head, 0, head.size)
        assert await whole(cached.here, head, 0, head.size) == array_bytes


async def test_it_waits_for_no_fetch_that_is_under_way(cached, origin, head, extents):
    origin.gate.clear()
    reading = asyncio.create_task(cached.read(head, extents[:1]))
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        with pytest.raises(NotCached):
            await cached.here.require(head, 0, 10)
    origin.gate.set()
    await reading
    await cached.here.require(head, 0, 10)


async def test_heads(cached, origin, path, data):
    with pytest.raises(NotCached):
        await cached.here.head(path)
    with pytest.raises(NotFound):
        await cached.here.head(DatasetPath("foo", "nothing"))
    old = await cached.head(path)
    await cached.read(old, (await all_extents(cached, old))[:1])
    new = origin.publish(path, data + b"more")
    assert await cached.here.head(path, old.etag) == old
    with pytest.raises(NotCached):
        await cached.here.head(path, new.etag)
    with pytest.raises(Changed):
        await cached.here.head(path, "0" * 32)


async def test_after_a_restart_what_is_wrong_on_disk_is_not_here(opened, path, mirror_files):
    async with opened() as cached:
        await cached.fill(await cached.head(path))
    (file,) = [file for file in mirror_files() if file.suffix == ".data"]
    flipped = bytearray(file.read_bytes())
    flipped[5 * PAGE] ^= 1
    file.write_bytes(flipped)
    async with opened() as cached:
        head = await cached.here.head(path)
        await cached.here.require(head, 0, 5 * PAGE)
        with pytest.raises(NotCached):
            await cached.here.require(head, 5 * PAGE, 6 * PAGE)


async def test_a_cache_that_is_shared_keeps_the_index_of_what_is_read(opened, origin, array_bytes, until):
    path = DatasetPath("foo", "a.b2nd")
    origin.publish(path, array_bytes)
    async with opened(shared=True) as cached:
        head = await cached.head(path)
        some = [extent for extent in await all_extents(cached, head) if extent.number >= FIXED_SLOTS][-4:]
        await cached.read(head, some)
        index = head.fixed_extent(Fixed.INDEX)
        await until(lambda: cached.state(path).cached_bytes == sum(e.size for e in [*some, index]))
        await cached.here.require(head, some[0].offset, some[0].stop)
        assert origin.calls["read"] == 2, "what is wanted, and the index"
