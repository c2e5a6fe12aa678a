"""Ever more clients: what each takes while it does nothing, reads now and then, or listens to events."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import aiohttp
from benchmarks.growth.table import Table, percentile
from benchmarks.services import Three, cpu_s, open_of, rss_mb
from tests.conftest import Process, Site

from caterva2.frame.write import write_array

__all__ = ["connections"]

SHAPE = (200, 200, 200)
SLICE = "slice_=50:60,50:60,50:60"
PAUSE_S = 2.0
READ_S = 10.0
IDLE_S = 10.0
HOLD_S = 3.0


def connections(directory: Path, counts: Iterable[int]) -> Table:
    import numpy as np

    table = Table("so many clients")
    (directory / "root").mkdir(parents=True)
    values = np.random.default_rng(1).random(SHAPE, np.float32)
    write_array(directory / "root" / "a.b2nd", values, chunks=(50, 50, 50))
    for count in counts:
        place = directory / f"clients{count}"
        place.mkdir()
        with closing(Site(place)) as site:
            three = Three(site, directory / "root")
            publisher, subscriber = three.publisher(), three.subscriber()
            publisher.url("publisher")
            three.wait_ready(subscriber, 1)
            table.add(f"{count:,}", asyncio.run(_column(subscriber, count)))
    return table


async def _column(subscriber: Process, count: int) -> dict[str, float]:
    url, pid = subscriber.url("subscriber"), subscriber.popen.pid
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
        session = await stack.enter_async_context(aiohttp.ClientSession(url, connector=connector))
        for _ in range(20):
            await _read(session)
        least_mb, least_open = rss_mb(pid), sum(open_of(pid))
        # a connection for each
        await asyncio.gather(*(_hold(session) for _ in range(count)))
        column = {
            "memory for each that is idle, KB": (rss_mb(pid) - least_mb) * 1e3 / count,
            "files open for each": (sum(open_of(pid)) - least_open) / count,
            "all idle, % of a core": await _idle(pid),
        }
        await asyncio.gather(*(_read(session) for _ in range(count)))
        await asyncio.sleep(1)
        column["… after all of them read a slice of 10³ at once, KB"] = (rss_mb(pid) - least_mb) * 1e3 / count
        before = cpu_s(pid)
        each = await asyncio.gather(*(_now_and_then(session) for _ in range(count)))
        took = [seconds for some in each for seconds in some]
        column |= {
            f"a slice of 10³ each {PAUSE_S:.0f} s, requests/s": len(took) / READ_S,
            "… p50, ms": percentile(took, 0.5) * 1e3,
            "… p99, ms": percentile(took, 0.99) * 1e3,
            "… CPU for each request, ms": (cpu_s(pid) - before) * 1e3 / len(took),
        }
    least_mb = rss_mb(pid)
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(url, connector=connector))
        streams = [await stack.enter_async_context(session.get("/api/events")) for _ in range(count)]
        await asyncio.gather(*(stream.content.readline() for stream in streams))
        await asyncio.sleep(1)
        column |= {
            "memory for each event stream, KB": (rss_mb(pid) - least_mb) * 1e3 / count,
            "all streams idle, % of a core": await _idle(pid),
        }
    return column


async def _idle(pid: int) -> float:
    before = cpu_s(pid)
    await asyncio.sleep(IDLE_S)
    return (cpu_s(pid) - before) / IDLE_S * 100


async def _hold(session: aiohttp.ClientSession) -> None:
    """Keep a connection until all others have one, too."""
    async with session.get("/health") as answer:
        await asyncio.sleep(HOLD_S)
        await answer.read()


async def _read(session: aiohttp.ClientSession) -> float:
    began = time.perf_counter()
    async with session.get(f"/api/fetch/foo/a.b2nd?{SLICE}") as answer:
        await answer.read()
        assert answer.status == 200
    return time.perf_counter() - began


async def _now_and_then(session: aiohttp.ClientSession) -> list[float]:
    took, ends = [], time.monotonic() + READ_S
    await asyncio.sleep(random.uniform(0, PAUSE_S))
    while time.monotonic() < ends:
        took.append(await _read(session))
        await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_S)
    return took
