"""A host that hangs is told from one that is slow, by real sockets."""

import asyncio
import time

import pytest

from caterva2.errors import Unavailable
from caterva2.model.path import DatasetPath
from caterva2.source.breaker import PROBE_S, SILENCE_S, Breaker

PATH = DatasetPath("foo", "x")
LIMIT_S = SILENCE_S + PROBE_S + 0.3


class Host:
    """Answers while it is awake; accepts connections, as the kernel of a stopped process does, while not."""

    def __init__(self) -> None:
        self.awake = asyncio.Event()
        self.slow = asyncio.Event()
        self.probes = 0
        self.requests = 0

    async def __aenter__(self) -> "Host":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.awake.set()
        self.slow.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            is_probe = head.startswith(b"GET /health ")
            self.probes += is_probe
            self.requests += not is_probe
            await self.awake.wait()
            if not is_probe:
                await self.slow.wait()
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        finally:
            writer.close()


@pytest.fixture
async def host():
    async with Host() as host:
        yield host


async def test_all_who_wait_for_a_host_that_hangs_are_told_soon(host, source_of):
    source = source_of(host.url, timeout_s=60)
    begun = time.monotonic()
    results = await asyncio.gather(*(source.head(PATH) for _ in range(5)), return_exceptions=True)
    assert time.monotonic() - begun < LIMIT_S
    assert [type(result) for result in results] == [Unavailable] * 5
    assert host.probes == source.stats.hangs == 1


async def test_while_it_hangs_others_are_refused_without_being_sent(host, source_of):
    source = source_of(host.url, timeout_s=60)
    with pytest.raises(Unavailable):
        await source.head(PATH)
    sent = host.requests
    begun = time.monotonic()
    for _ in range(20):
        with pytest.raises(Unavailable, match="not even whether it is well"):
            await source.head(PATH)
    assert time.monotonic() - begun < 20 * PROBE_S  # most of them at once
    assert host.requests == sent


async def test_it_is_asked_again_as_soon_as_it_answers_a_probe(host, source_of):
    source = source_of(host.url, timeout_s=60)
    with pytest.raises(Unavailable):
        await source.head(PATH)
    host.awake.set()
    host.slow.set()
    async with asyncio.timeout(5):
        while host.requests < 2:
            with pytest.raises(Unavailable):  # refused at first, then answered with 503
                await source.head(PATH)
            await asyncio.sleep(0.05)
    with pytest.raises(Unavailable, match="503"):
        await source.head(PATH)


async def test_a_host_that_is_only_slow_is_waited_for(host, source_of):
    host.awake.set()
    source = source_of(host.url, timeout_s=60)
    asked = asyncio.create_task(source.head(PATH))
    async with asyncio.timeout(10):
        while host.probes < 2:
            await asyncio.sleep(0.05)
    assert not asked.done()
    host.slow.set()
    with pytest.raises(Unavailable, match="503"):
        await asked


async def test_signs_of_life_need_no_probe():
    probes = []

    async def probe() -> None:
        probes.append(1)

    breaker = Breaker("host", probe, lambda: pytest.fail("tripped"), silence_s=0.2)
    with breaker.watching(lambda: pytest.fail("given up")):
        for _ in range(20):
            await asyncio.sleep(0.03)
            breaker.heard()
    assert not probes
    await breaker.admit()
