"""A large root, many views, and what idle services take: as Markdown tables. Real processes, on this machine.

``CATERVA2_DATASETS``, ``CATERVA2_VIEWS`` and ``CATERVA2_IDLE_S`` make it smaller. ``python -m pytest -q -s``.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import urllib3
from tests.conftest import Process, Site

from caterva2.bus.announcer import Announcer
from caterva2.bus.catalogue import CatalogueView
from caterva2.bus.connection import Bus, ask_broker
from caterva2.model.catalogue import Catalogue, Entry, Event
from caterva2.testing.samples import write_small
from caterva2.testing.waiting import until, wait_until

DATASETS = int(os.environ.get("CATERVA2_DATASETS", "100000"))
VIEWS = int(os.environ.get("CATERVA2_VIEWS", "200"))
IDLE_S = float(os.environ.get("CATERVA2_IDLE_S", "60"))
CHANGES = 200
WORKERS = 4
ROUNDS = 3

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


# -- processes ---------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_of(pid: int) -> tuple[int, int]:
    """Return how many connections and how many other files a process has open."""
    targets = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
    connections = sum(target.name.startswith("socket:") for target in targets)
    return connections, len(targets) - connections


def described(pid: int) -> str:
    connections, files = open_of(pid)
    return f"{connections} sockets, {files} other files, {rss_mb(pid):.0f} MB"


def bus_of(broker: Process) -> int:
    pid = broker.popen.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def idle_rows(pids: dict[str, int]) -> list[tuple[str, str]]:
    """Return what each process takes while nothing happens."""
    time.sleep(5)
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    time.sleep(IDLE_S)
    return [
        (f"idle {name}", f"{(cpu_s(pid) - before[name]) / IDLE_S:.2%} of a core, {rss_mb(pid):.0f} MB")
        for name, pid in pids.items()
    ]


# -- services ----------------------------------------------------------------------------------------


class Three:
    """A broker, a publisher and subscribers, started one by one so that each can be timed."""

    def __init__(self, site: Site, root: Path, datasets: int) -> None:
        self.site, self.root, self.datasets = site, root, datasets
        self._http = urllib3.PoolManager()
        self.broker = self._start("broker")
        site.environment["CATERVA2_BROKER"] = self.broker.url("broker")

    def _start(self, service: str, *arguments: str, state: str = "") -> Process:
        directory = str(self.site.directory / (state or service))
        return self.site.start(service, *arguments, "--listen", "127.0.0.1:0", "--state", directory)

    def publisher(self) -> Process:
        return self._start("publisher", "foo", str(self.root))

    def subscriber(self, state: str) -> Process:
        return self._start("subscriber", state=state)

    def wait_ready(self, subscriber: Process) -> None:
        """Wait until a subscriber knows all, confirmed."""
        url = f"{subscriber.url('subscriber')}/metrics"
        wanted = [
            f'caterva2_subscriber_datasets{{root="foo"}} {float(self.datasets)}',
            'caterva2_subscriber_fresh{root="foo"} 1.0',
        ]

        def ready() -> bool:
            lines = self._http.request("GET", url).data.decode().splitlines()
            return all(line in lines for line in wanted)

        wait_until(ready, 300)

    def ready_s(
        self, start: Callable[[], Process], subscriber: Process | None = None
    ) -> tuple[Process, float]:
        """Start a process; return it, and how long after a subscriber (by default it) was ready."""
        began = time.perf_counter()
        process = start()
        self.wait_ready(subscriber or process)
        return process, time.perf_counter() - began


def test_scale_large_root(site: Site) -> None:
    three = Three(site, write_small(site.directory / "root", DATASETS), DATASETS)
    first = three.subscriber("first")
    first.url("subscriber")
    publisher, announced_s = three.ready_s(three.publisher, first)
    new_s, again_s = [], []
    for number in range(ROUNDS):
        for seconds in (new_s, again_s):
            new, took_s = three.ready_s(lambda: three.subscriber(f"new-{number}"))  # noqa: B023 - called at once
            seconds.append(took_s)
            new.stop()
    pids = {
        "broker": three.broker.popen.pid,
        "nats-server": bus_of(three.broker),
        "publisher": publisher.popen.pid,
        "subscriber": first.popen.pid,
    }
    idle = idle_rows(pids)
    publisher.stop()
    publisher, back_s = three.ready_s(three.publisher, first)
    table(
        f"{DATASETS:,} datasets",
        [
            ("publisher started, nothing known, until a subscriber is ready", f"{announced_s:.1f} s"),
            ("new subscriber started, until it is ready", f"{statistics.median(new_s):.1f} s"),
            ("subscriber started again, until it is ready", f"{statistics.median(again_s):.1f} s"),
            ("publisher stopped, started again, until a subscriber is ready", f"{back_s:.1f} s"),
            *idle,
        ],
    )


def test_scale_tiny_root(site: Site) -> None:
    three = Three(site, write_small(site.directory / "root", 10), 10)
    publisher = three.publisher()
    subscriber, _ = three.ready_s(lambda: three.subscriber("first"))
    pids = {
        "broker": three.broker.popen.pid,
        "nats-server": bus_of(three.broker),
        "publisher": publisher.popen.pid,
        "subscriber": subscriber.popen.pid,
    }
    table("10 datasets", idle_rows(pids))


# -- many views --------------------------------------------------------------------------------------


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
    three = Three(site, site.directory, 0)
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
