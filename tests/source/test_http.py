import asyncio
import logging
import random

import pytest

from caterva2.errors import Changed, IntegrityError, NotFound, Unavailable
from caterva2.model.extents import FILE_EXTENT_BYTES
from caterva2.model.path import DatasetPath
from caterva2.source.byteranges import MAX_RANGES, REQUEST_BYTES
from caterva2.testing.contracts import all_extents
from caterva2.testing.faults import Fault


class TestPages:
    async def test_batched(self, server, source_of):
        many = DatasetPath("foo", "many pages")
        server.source.publish(many, bytes(FILE_EXTENT_BYTES) * (128 * 7 + 1))
        source = source_of(server.url)
        head = await source.head(many)
        assert head.npages == 8
        server.seen.clear()
        pages = await source.pages(head, [7, 1, 4, 5, 1])
        assert [page.number for page in pages] == [7, 1, 4, 5, 1]
        assert [seen.query for seen in server.seen] == [f"pages=1,4-5,7&version={head.etag}"]

    async def test_what_is_known_is_not_moved_again(self, server, source_of):
        path = DatasetPath("foo", "grows")
        data = random.Random(1).randbytes(FILE_EXTENT_BYTES * 300)
        server.source.publish(path, data)
        source = source_of(server.url)
        head = await source.head(path)
        known = {page.number: page for page in await source.pages(head, range(3))}
        server.source.publish(path, data + b"more")
        head = await source.head(path)
        before = server.sent_bytes
        pages = await source.pages(head, range(3), known)
        moved = server.sent_bytes - before
        assert [page.encode() for page in pages] == [
            page.encode() for page in await server.source.pages(head, range(3))
        ]
        assert pages[0].encode() == known[0].encode()
        assert pages[2].content != known[2].content
        assert moved < len(pages[0].encode()) + len(pages[2].encode())
        contents = ",".join(known[n].content.hex() for n in range(3))
        assert server.seen[-1].query == f"pages=0-2&known={contents}&version={head.etag}"

    async def test_a_known_page_that_is_spoilt_on_its_way_is_asked_for_again(self, server, source, head):
        known = dict(enumerate(await source.pages(head, [0])))
        server.faults.append(Fault("flip", route="/api/"))
        assert (await source.pages(head, [0], known))[0].encode() == known[0].encode()
        assert source.stats.retries == 1

    async def test_wrong_pages_are_refused(self, server, source, head):
        server.faults.append(Fault("junk", times=2, route="/api/"))
        with pytest.raises(Unavailable):
            await source.pages(head, [0])


class TestWithdrawn:
    """A dataset that its publisher does not have (any more, or yet: it may have lost what it knew)."""

    async def test_a_version_of_it_changed(self, server, source, head, extents, path):
        server.source.withdraw(path)
        for work in (source.head(path, head.etag), source.pages(head, [0]), source.read(head, extents[:1])):
            with pytest.raises(Changed) as caught:
                await work
            assert (caught.value.wanted_etag, caught.value.current_etag) == (head.etag, None)

    async def test_it_is_not_found(self, server, source, head, path):
        server.source.withdraw(path)
        with pytest.raises(NotFound):
            await source.head(path)


class TestRead:
    async def test_near_extents_are_one_range(self, server, source, head, extents, data_requests, data):
        assert await source.read(head, extents[2:5]) == [data[e.offset : e.stop] for e in extents[2:5]]
        (request,) = data_requests()
        assert request.ranges == f"bytes={extents[2].offset}-{extents[4].stop - 1}"

    async def test_far_extents_are_one_request(self, server, source, head, extents, data_requests, data):
        wanted = [extents[9], extents[0], extents[4]]
        assert await source.read(head, wanted) == [data[e.offset : e.stop] for e in wanted]
        (request,) = data_requests()
        assert request.ranges.count("-") == 3

    async def test_gaps_are_jumped_when_they_are_small(
        self, server, head, extents, data_requests, source_of, data
    ):
        source = source_of(server.url, gap_bytes=FILE_EXTENT_BYTES)
        wanted = extents[0:9:2]
        assert await source.read(head, wanted) == [data[e.offset : e.stop] for e in wanted]
        assert data_requests()[0].ranges.count("-") == 1

    async def test_requests_are_bounded_in_size_and_number(self, server, source_of):
        path = DatasetPath("foo", "large")
        data = random.Random(3).randbytes(300 * FILE_EXTENT_BYTES)
        server.source.publish(path, data)
        source = source_of(server.url, requests=2)
        head = await source.head(path)
        extents = await all_extents(source, head)
        server.seen.clear()
        server.most_at_once = 0
        server.gate.clear()
        reader = asyncio.create_task(source.read(head, extents))
        while server.most_at_once < 2:
            await asyncio.sleep(0.001)
        server.gate.set()
        assert await reader == [data[e.offset : e.stop] for e in extents]
        assert len(server.seen) == len(data) / REQUEST_BYTES + 0.625
        assert server.most_at_once == 2
        server.seen.clear()
        scattered = extents[::2]
        assert await source.read(head, scattered) == [data[e.offset : e.stop] for e in scattered]
        assert all(seen.ranges.count("-") <= MAX_RANGES for seen in server.seen)

    @pytest.mark.parametrize("kind", ["truncate", "short", "long", "content-range", "whole", "no-etag"])
    @pytest.mark.parametrize("count", [1, 3])
    async def test_bad_answers(self, server, source, head, extents, kind, count, data):
        wanted = extents[0 : 2 * count : 2]
        server.faults.append(Fault(kind))
        if kind == "long" and count == 3:
            assert await source.read(head, wanted)  # bytes behind the end mark harm nobody
            return
        if kind == "short" and count == 3:
            server.faults[0].kind = "no-end"
        assert await source.read(head, wanted) == [data[e.offset : e.stop] for e in wanted]
        assert source.stats.retries == 1
        server.faults.append(Fault(server.faults[0].kind, times=2))
        with pytest.raises(Unavailable, match="twice"):
            await source.read(head, wanted)
        assert await source.read(head, wanted) == [data[e.offset : e.stop] for e in wanted]

    async def test_connection_reset(self, server, source, head, extents, data):
        server.faults.append(Fault("reset"))
        assert await source.read(head, extents[:1]) == [data[: extents[0].size]]
        server.faults.append(Fault("reset", times=10))
        with pytest.raises(Unavailable):
            await source.read(head, extents[:1])

    async def test_missing_part(self, server, source, head, extents, data):
        server.faults.append(Fault("missing-part"))
        wanted = extents[::5]
        assert await source.read(head, wanted) == [data[e.offset : e.stop] for e in wanted]
        assert source.stats.retries == 1

    async def test_version_that_moved_on(self, server, source, head, extents, path, data):
        new = server.source.publish(path, data[::-1])
        with pytest.raises(Changed) as caught:
            await source.read(head, extents)
        assert (caught.value.wanted_etag, caught.value.current_etag) == (head.etag, new.etag)

    async def test_answer_of_another_version(self, server, source, head, extents):
        server.faults.append(Fault("etag"))
        with pytest.raises(Changed):
            await source.read(head, extents[:1])

    async def test_flipped_bit_is_fetched_again(
        self, server, source, head, extents, caplog, data_requests, path, data
    ):
        server.faults.append(Fault("flip"))
        with caplog.at_level(logging.WARNING):
            pieces = await source.read(head, extents)
        assert pieces == [data[e.offset : e.stop] for e in extents]
        assert source.stats.rejected == 1
        assert server.url in caplog.text
        assert str(path) in caplog.text
        # only the extent that was wrong
        again = data_requests()[-1].ranges.removeprefix("bytes=").split("-")
        assert int(again[1]) - int(again[0]) + 1 <= FILE_EXTENT_BYTES

    async def test_flipped_twice(self, server, source, head, extents):
        server.faults.append(Fault("flip", times=2))
        with pytest.raises(IntegrityError) as caught:
            await source.read(head, extents[3:4])
        assert (caught.value.offset, caught.value.size) == (extents[3].offset, extents[3].size)
        assert caught.value.source == server.url
        assert source.stats.rejected == 2

    async def test_cancelling_leaves_nothing_behind(self, server, source, head, extents, data_requests, data):
        server.gate.clear()
        reader = asyncio.create_task(source.read(head, extents))
        while not data_requests():
            await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        server.gate.set()
        assert await source.read(head, extents) == [data[e.offset : e.stop] for e in extents]

    async def test_bytes_are_counted(self, server, source, head, extents):
        before = source.stats.bytes
        await source.read(head, extents[:2])
        assert source.stats.bytes - before == 2 * FILE_EXTENT_BYTES


class TestStream:
    async def test_broken_off_and_resumed(self, server, source, head, data_requests, data):
        server.faults.append(Fault("truncate"))
        pieces = [piece async for piece in source.stream(head, 5, head.size)]
        assert b"".join(pieces) == data[5:]
        first, second = data_requests()
        assert first.ranges == f"bytes=5-{head.size - 1}"
        assert second.ranges != first.ranges

    async def test_broken_off_twice(self, server, source, head):
        server.faults.append(Fault("truncate", times=2))
        with pytest.raises(Unavailable):
            async for _ in source.stream(head, 0, head.size):
                pass

    async def test_version_that_moved_on(self, server, source, head, path):
        server.source.publish(path, b"new")
        with pytest.raises(Changed):
            async for _ in source.stream(head, 0, 10):
                pass
