"""Clients that read slowly, or go away, and many at once: others are served, and nobody is asked in vain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.source.slices import SLAB_BYTES
from caterva2.testing.faults import Fault
from caterva2.testing.waiting import until

RAW = {"Accept": "application/vnd.caterva2.raw"}
QUICK_S = 10.0
"""Much longer than a quick read takes, much shorter than a slow client would keep one waiting."""

LEFT_S = 3.0
"""How soon it is noticed that a client left: not only when the publisher has been silent for 10 s."""

FINE_ROWS = 8
FINE = np.random.default_rng(3).integers(0, 1 << 16, (2048, 512), np.uint16)
"""Its file has 512 blocks of 4 kB that do not compress; rows of two beside each other."""

LARGE_SHAPE = (64, 512, 256)
LARGE = np.arange(np.prod(LARGE_SHAPE), dtype=np.int32).reshape(LARGE_SHAPE)
"""32 MB; its file is small."""


@pytest.fixture(scope="session")
def fine(tmp_path_factory) -> bytes:
    return written(tmp_path_factory.mktemp("fine"), FINE, (1024, 512), (FINE_ROWS, 256))


@pytest.fixture(scope="session")
def large(tmp_path_factory) -> bytes:
    return written(tmp_path_factory.mktemp("large"), LARGE, (8, 512, 256), (1, 512, 256))


def written(directory: Path, array: np.ndarray, chunks: tuple[int, ...], blocks: tuple[int, ...]) -> bytes:
    return write_array(directory / "array.b2nd", array, chunks=chunks, blocks=blocks).read_bytes()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
def get(session):
    async def get(url: str, headers: dict[str, str] = RAW) -> bytes:
        async with asyncio.timeout(QUICK_S), session.get(url, headers=headers) as answer:
            body = await answer.read()
            assert answer.status == 200, (answer.status, body)
            return body

    return get


@asynccontextmanager
async def asked(url: str) -> AsyncIterator[asyncio.StreamReader]:
    """Ask on a socket of one's own that takes little at a time; leave by closing it."""
    parts = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (parts.hostname, parts.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
    target = f"{parts.path}?{parts.query}"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {RAW['Accept']}\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()


async def dribble(reader: asyncio.StreamReader, taken: list[bytes]) -> None:
    """Read 4 kB now and then, for as long as it is wanted."""
    while data := await reader.read(4096):
        taken.append(data)
        await asyncio.sleep(0.5)


def part(site, name: str, selection: str = "") -> str:
    return f"{site.url}/api/fetch/foo/{name}?slice_={quote(selection)}"


class TestSlowClients:
    async def test_others_do_not_wait_for_one(self, beside, get, large) -> None:
        site = await beside({"large.b2nd": large})
        budget = site.subscriber.reader.budget
        async with asked(part(site, "large.b2nd")) as reader:
            taken: list[bytes] = [await reader.read(4096)]
            assert taken[0].startswith(b"HTTP/1.1 200")
            slow = asyncio.create_task(dribble(reader, taken))
            for plane in range(0, 64, 4):
                assert await get(part(site, "large.b2nd", str(plane))) == LARGE[plane].tobytes()
            assert await get(part(site, "large.b2nd", "0:20")) == LARGE[:20].tobytes()
            assert not slow.done() and sum(map(len, taken)) < 1 << 20
            slow.cancel()
        await until(lambda: not budget.granted_bytes)

    async def test_who_takes_all_the_memory_keeps_it_for_a_while_only(self, beside, get, large) -> None:
        site = await beside({"large.b2nd": large})
        await get(part(site, "large.b2nd", "::8"))
        budget = site.subscriber.reader.budget
        slow = []
        async with asyncio.TaskGroup() as clients:

            async def be_slow() -> None:
                async with asked(part(site, "large.b2nd")) as reader:
                    await dribble(reader, [])

            slow = [clients.create_task(be_slow()) for _ in range(12)]
            await until(lambda: budget.granted_bytes == budget.limit_bytes)
            # small ones take no part in it, large ones in both ways wait for their turn
            small, slabs, whole = await asyncio.gather(
                asyncio.gather(*(get(part(site, "large.b2nd", str(plane))) for plane in range(8))),
                asyncio.gather(*(get(part(site, "large.b2nd", "0:24")) for _ in range(3))),
                asyncio.gather(*(get(part(site, "large.b2nd", "8:24"), {}) for _ in range(3))),
            )
            assert small == [LARGE[plane].tobytes() for plane in range(8)]
            assert set(slabs) == {LARGE[:24].tobytes()}
            assert all(len(cframe) > 1000 for cframe in whole)
            assert not any(client.done() for client in slow)
            for client in slow:
                client.cancel()
        await until(lambda: not budget.granted_bytes)
        assert await get(part(site, "large.b2nd")) == LARGE.tobytes()


class TestSlowPublishers:
    async def test_large_reads_of_what_is_here_do_not_wait_for_it(self, beside, get, session, large) -> None:
        site = await beside({"large.b2nd": large, "cold.b2nd": large})
        budget = site.subscriber.reader.budget
        expected = LARGE.tobytes()
        assert await get(part(site, "large.b2nd")) == expected
        site.publisher.gate.clear()
        async with asyncio.TaskGroup() as clients:

            async def read() -> bytes:
                async with session.get(part(site, "cold.b2nd"), headers=RAW) as answer:
                    return await answer.read()

            cold = [clients.create_task(read()) for _ in range(budget.limit_bytes // SLAB_BYTES + 2)]
            await until(lambda: site.publisher.under_way)
            assert await get(part(site, "large.b2nd")) == expected
            assert not any(client.done() for client in cold)
            site.publisher.gate.set()
        assert {client.result() for client in cold} == {expected}


class TestClientsThatLeave:
    async def test_nobody_is_asked_for_what_nobody_wants(self, beside, get, fine) -> None:
        site = await beside({"fine.b2nd": fine})
        publisher = site.publisher
        publisher.gate.clear()
        async with asked(part(site, "fine.b2nd", "0:8")):
            await until(lambda: publisher.under_way == 1 and site.data_ranges)
        await until(lambda: publisher.under_way == 0, LEFT_S)
        publisher.gate.set()
        assert await get(part(site, "fine.b2nd", "0:8")) == FINE[:8].tobytes()

    async def test_an_answer_that_is_arriving_is_broken_off(self, beside, get, fine) -> None:
        site = await beside({"fine.b2nd": fine})
        publisher = site.publisher
        await get(part(site, "fine.b2nd", "0:8"))
        publisher.faults.append(Fault("slow"))
        before = publisher.sent_bytes
        async with asked(part(site, "fine.b2nd", "100:800")):
            await until(lambda: publisher.sent_bytes > before)
        await until(lambda: publisher.under_way == 0, LEFT_S)
        assert publisher.sent_bytes - before < FINE[100:800].nbytes
        assert await get(part(site, "fine.b2nd", "100:800")) == FINE[100:800].tobytes()

    async def test_the_fetch_goes_on_for_another_who_wants_it(self, beside, get, fine) -> None:
        site = await beside({"fine.b2nd": fine})
        await get(part(site, "fine.b2nd", "0:8"))
        publisher, stats = site.publisher, site.subscriber.source.stats
        requests, missed = len(publisher.seen), stats.misses
        publisher.faults.append(Fault("slow"))
        async with asked(part(site, "fine.b2nd", "64:72")):
            await until(lambda: stats.misses == missed + 2)
            staying = asyncio.create_task(get(part(site, "fine.b2nd", "64:72")))
            await until(lambda: stats.misses == missed + 4)
        assert await staying == FINE[64:72].tobytes()
        assert len(publisher.seen) == requests + 1
        assert publisher.under_way == 0

    async def test_a_download_that_is_left_fetches_no_more(self, beside, get) -> None:
        data = np.random.default_rng(4).bytes(64 << 20)
        site = await beside({"plain.bin": data})
        async with asked(f"{site.url}/api/download/foo/plain.bin") as reader:
            assert (await reader.read(100)).startswith(b"HTTP/1.1 200")
        await until(lambda: not site.publisher.under_way and not busy(site), LEFT_S)
        assert site.publisher.sent_bytes < len(data) // 2
        assert await get(f"{site.url}/api/download/foo/plain.bin") == data


def busy(site) -> bool:
    return any(version.users for version in site.subscriber.source._store.everything())


class TestManyReaders:
    @pytest.mark.parametrize("limit", [3, 8])
    async def test_a_publisher_is_asked_so_many_things_at_once(self, beside, get, fine, limit) -> None:
        site = await beside({"fine.b2nd": fine}, upstream_requests=limit, gap_bytes=0)
        publisher = site.publisher
        await get(part(site, "fine.b2nd", "2047"))
        publisher.gate.clear()
        rows = range(0, 50 * FINE_ROWS, FINE_ROWS)
        readers = [asyncio.create_task(get(part(site, "fine.b2nd", str(row)))) for row in rows]
        stats = site.subscriber.source.stats
        await until(lambda: stats.misses >= 2 * len(rows) and publisher.under_way == limit)
        publisher.gate.set()
        assert await asyncio.gather(*readers) == [FINE[row].tobytes() for row in rows]
        assert publisher.most_at_once == limit

    async def test_gap_bytes_decides_what_is_one_range(self, beside, get, fine) -> None:
        """Every other block of a row of 512, each of 4 kB: as ranges of their own, or as one."""
        site = await beside({"fine.b2nd": fine}, gap_bytes=0)
        assert await get(part(site, "fine.b2nd", ":, :256")) == FINE[:, :256].tobytes()
        apart, sent = site.data_ranges, site.publisher.sent_bytes
        print(f"gap_bytes=0: {len(apart)} requests, {sum(apart)} ranges, {sent} bytes")
        assert sum(apart) > 200
        assert len(apart) <= 4 + sum(apart) // 64
        assert sent < 0.6 * len(fine)

    async def test_gap_bytes_that_span_a_block(self, beside, get, fine) -> None:
        site = await beside({"fine.b2nd": fine}, gap_bytes=8192)
        assert await get(part(site, "fine.b2nd", ":, :256")) == FINE[:, :256].tobytes()
        joined, sent = site.data_ranges, site.publisher.sent_bytes
        print(f"gap_bytes=8192: {len(joined)} requests, {sum(joined)} ranges, {sent} bytes")
        assert sum(joined) <= 4
        assert len(joined) <= 2
        assert sent > 0.9 * len(fine)
