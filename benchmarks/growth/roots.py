"""A root of ever more datasets: what it takes to announce, to know, to list, and to be there."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import urllib3
from benchmarks.growth.table import Table, ms
from benchmarks.services import Three, bus_of, cpu_s, idle, rss_mb
from tests.conftest import Process, Site

import caterva2
from caterva2.testing.samples import write_small
from caterva2.testing.waiting import wait_until

__all__ = ["roots"]

CHANGES = 5
IDLE_S = 20.0


def roots(directory: Path, counts: Iterable[int]) -> Table:
    table = Table("a root of so many datasets")
    for count in counts:
        place = directory / f"root{count}"
        place.mkdir(parents=True)
        with closing(Site(place)) as site:
            three = Three(site, write_small(place / "root", count))
            table.add(f"{count:,}", _column(three, count))
    return table


def _column(three: Three, count: int) -> dict[str, float]:
    first = three.subscriber("first")
    first.url("subscriber")
    publisher, announced_s = three.ready_s(three.publisher, count, first)
    column = {
        "announced, until a subscriber knows all, s": announced_s,
        "… of it the publisher works, CPU s": cpu_s(publisher.popen.pid),
    }
    new, column["subscriber started, new, s"] = three.ready_s(lambda: three.subscriber("new"), count)
    new.stop()
    again, column["subscriber started again, s"] = three.ready_s(lambda: three.subscriber("new"), count)
    again.stop()
    column |= _reads(first) | {"a change seen by a subscriber, ms (median of 5)": _changes_ms(three, first)}
    services = {"broker": three.broker, "publisher": publisher, "subscriber": first}
    pids = {name: process.popen.pid for name, process in services.items()}
    pids["nats-server"] = bus_of(three.broker)
    for name, share in idle(pids, IDLE_S).items():
        column[f"idle {name}, % of a core"] = share * 100
    column |= {f"memory of the {name}, MB": rss_mb(pid) for name, pid in pids.items()}
    publisher.stop()
    _, column["publisher started again, until a subscriber is ready, s"] = three.ready_s(
        three.publisher, count, first
    )
    return column


def _reads(subscriber: Process) -> dict[str, float]:
    url, http = subscriber.url("subscriber"), urllib3.PoolManager()

    def get(path: str) -> bytes:
        answer = http.request("GET", f"{url}{path}")
        assert answer.status == 200, answer.data
        return answer.data

    def five(path: str) -> float:
        return statistics.median(ms(lambda: get(path)) for _ in range(5))

    get("/api/info/foo/000/000000.b2nd")
    with caterva2.connect(url) as client:
        every_ms = ms(lambda: client.list("foo"))
    return {
        "first page of 1000 of the catalogue, ms": five("/api/catalogue/foo"),
        "list of all names, ms": five("/api/list/foo"),
        "list of all names, KB": len(get("/api/list/foo")) / 1e3,
        "list of one directory of 1000, ms": five("/api/list/foo/000"),
        "all by the Python client, ms": every_ms,
        "info of one dataset, ms": five("/api/info/foo/000/000000.b2nd"),
    }


def _changes_ms(three: Three, subscriber: Process) -> float:
    """Let a dataset become what its neighbour is, and back; the file settles for 500 ms each time."""
    file, neighbour = (three.root / "000" / f"{number:06}.b2nd" for number in range(2))
    contents = [neighbour.read_bytes(), file.read_bytes()]
    url = f"{subscriber.url('subscriber')}/api/info/foo/000/000000.b2nd"
    http = urllib3.PoolManager()

    def etag() -> str:
        return http.request("GET", url).json()["etag"]

    took = []
    for number in range(CHANGES):
        before, staged = etag(), three.site.directory / "staged"
        staged.write_bytes(contents[number % 2])
        staged.replace(file)
        took.append(ms(lambda before=before: wait_until(lambda: etag() != before, 60)))
    return statistics.median(took)
