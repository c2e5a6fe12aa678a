"""Many views: how long a change takes to reach all of them. Real processes, on this machine.

``CATERVA2_VIEWS`` makes it smaller; see ``make bench-growth`` for all else that grows.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from benchmarks.services import Three, bus_of, open_of, rss_mb
from tests.conftest import Site

from caterva2.bus.announcer import Announcer
from caterva2.bus.catalogue import CatalogueView
from caterva2.bus.connection import Bus, ask_broker
from caterva2.model.catalogue import Catalogue, Event
from caterva2.model.root import Entry
from caterva2.testing.waiting import until, wait_until

VIEWS = int(os.environ.get("CATERVA2_VIEWS", "200"))
CHANGES = 200
WORKERS = 4

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    load = os.getloadavg()[0]
    lines = [f"| {title} | load of the machine: {load:.1f} |", "|---|---|"]
    print("\n".join(["", *lines, *(f"| {what} | {value} |" for what, value in rows)]))


def described(pid: int) -> str:
    connections, files = open_of(pid)
    return f"{connections} sockets, {files} other files, {rss_mb(pid):.0f} MB"


def look_on(broker: str, views: int, pipe: Connection) -> None:
    """Run views in a process of its own; say when they are ready, and when all of them have a change."""
    asyncio.run(_look_on(broker, views, pipe))


async def _look_on(broker: str, views: int, pipe: Connection) -> None:
    having: dict[int, int] = {}

    def on_event(event: Event, entry: Entry | None) -> None:
        if entry is None:
            return
        having[entry.generation] = having.get(entry.generation, 0) + 1
        if having[entry.generation] == views:
            pipe.send((entry.generation, time.monotonic()))

    async with AsyncExitStack() as stack:
        catalogues = [Catalogue() for _ in range(views)]
        tasks = []
        for catalogue in catalogues:
            bus = await stack.enter_async_context(Bus(lambda: ask_broker(broker, None)))
            tasks.append(asyncio.create_task(CatalogueView(bus, catalogue).run()))
        await until(lambda: all("foo" in c.roots and c.roots["foo"].fresh for c in catalogues), 120)
        for catalogue in catalogues:
            catalogue.listen(on_event)
        pipe.send("ready")
        await asyncio.to_thread(pipe.recv)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_scale_many_views(site: Site) -> None:
    three = Three(site, site.directory)
    three.broker.wait_for_line("bus connected")
    bus = bus_of(three.broker)
    before, connections = described(bus), open_of(bus)[0]
    url = site.environment["CATERVA2_BROKER"]
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for _ in range(WORKERS):
        mine, theirs = context.Pipe()
        worker = context.Process(target=look_on, args=(url, VIEWS // WORKERS, theirs), daemon=True)
        worker.start()
        pipes.append(mine)
        workers.append(worker)
    seconds = asyncio.run(_announce(url, pipes))
    meanwhile = described(bus)
    for pipe in pipes:
        pipe.send("enough")
    for worker in workers:
        worker.join(60)
    wait_until(lambda: open_of(bus)[0] <= connections, 60)
    centiles = statistics.quantiles(seconds, n=100)
    table(
        f"{VIEWS} views in {WORKERS} processes, {CHANGES} changes",
        [
            ("change known to all, median", f"{statistics.median(seconds) * 1e3:.0f} ms"),
            ("change known to all, p99", f"{centiles[98] * 1e3:.0f} ms"),
            ("change known to all, longest", f"{max(seconds) * 1e3:.0f} ms"),
            ("nats-server, before", before),
            ("nats-server, with the views", meanwhile),
            ("nats-server, after they left", described(bus)),
        ],
    )
    assert centiles[98] < 1.0


async def _announce(url: str, pipes: Sequence[Connection]) -> list[float]:
    """Announce changes one after the other; return what each took to reach all, in seconds."""
    catalogue = Catalogue()
    catalogue.set_root("foo")
    async with Bus(lambda: ask_broker(url, None)) as bus:
        announcer = Announcer(bus, catalogue, {"foo": ""}, instance="one", url="http://one")
        task = asyncio.create_task(announcer.run())
        for pipe in pipes:
            assert await asyncio.to_thread(pipe.recv) == "ready"
        seconds = []
        for generation in range(1, CHANGES + 1):
            began = time.monotonic()
            catalogue.apply("foo", "x", Entry(f"{generation:032x}", generation, 1, "file", 1.0))
            arrived = [await asyncio.to_thread(pipe.recv) for pipe in pipes]
            assert {number for number, _ in arrived} == {generation}
            seconds.append(max(at for _, at in arrived) - began)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return seconds
