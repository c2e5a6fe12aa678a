"""A cache of ever more extents: what it takes on disk, to start with it, to read, and to evict."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import urllib3
from benchmarks.growth.table import Table, ms
from benchmarks.services import Three, cpu_s, rss_mb
from tests.conftest import Process, Site

import caterva2
from caterva2.frame.write import write_array
from caterva2.testing.samples import write_many

__all__ = ["caches"]

MANY, OTHER = "many.b2nd", "other.b2nd"
OTHER_SHAPE = (256, 256)


def caches(directory: Path, sides: Iterable[int]) -> Table:
    table = Table("a cache of so many extents")
    for side in sides:
        place = directory / f"cache{side}"
        (place / "root").mkdir(parents=True)
        write_many(place / "root" / MANY, (side, side))
        noise = np.random.default_rng(1).integers(0, 256, OTHER_SHAPE, np.uint8)
        write_array(place / "root" / OTHER, noise, chunks=OTHER_SHAPE)
        with closing(Site(place)) as site:
            table.add(f"{side * side:,}", _column(Three(site, place / "root"), side))
        (place / "root" / MANY).unlink()
    return table


def _column(three: Three, side: int) -> dict[str, float]:
    three.publisher().url("publisher")
    subscriber = three.subscriber()
    three.wait_ready(subscriber, 2)
    before = cpu_s(subscriber.popen.pid)
    column = {"filled by a download, s": ms(lambda: _download(subscriber)) / 1e3}
    column["… CPU of the subscriber, s"] = cpu_s(subscriber.popen.pid) - before
    column["… memory of the subscriber after it, MB"] = rss_mb(subscriber.popen.pid)
    metrics = three.metrics("subscriber", subscriber)
    cached = int(metrics["cache_used_bytes"])
    column["cached, MB"] = cached / 1e6
    for how, end in (("kill -9", Process.kill), ("a clean stop", Process.stop)):
        end(subscriber)
        subscriber, ready_s = three.ready_s(three.subscriber, 2)
        column |= {f"started after {how}, s": ready_s} | _first(subscriber, side, how)
    subscriber.stop()
    files = [file for file in (three.site.directory / "subscriber" / "cache").rglob("*") if file.is_file()]
    column["index on disk, MB"] = sum(file.stat().st_size for file in files if "index" in file.name) / 1e6
    return column | _evicted(three, cached)


def _first(subscriber: Process, side: int, how: str) -> dict[str, float]:
    pid, url = subscriber.popen.pid, subscriber.url("subscriber")
    with caterva2.connect(url) as client:
        first_ms = ms(lambda: client[f"foo/{MANY}"][side * 8, side * 16])
        listed_ms = ms(client.cache.list)
    return {
        f"first element after {how}, ms": first_ms,
        f"cache ls after {how}, ms": listed_ms,
        f"memory after {how}, MB": rss_mb(pid),
    }


def _evicted(three: Three, cached: int) -> dict[str, float]:
    """Start with a quota of 1 % less, and read what is not here: more is evicted than is needed."""
    subscriber = three.subscriber("subscriber", "--quota", str(int(cached * 0.99)))
    three.wait_ready(subscriber, 2)
    with caterva2.connect(subscriber.url("subscriber")) as client:
        client.cache.drop(f"foo/{OTHER}")
        took_ms = ms(lambda: client[f"foo/{OTHER}"][0, 0])
    metrics = three.metrics("subscriber", subscriber)
    return {
        "read for which a tenth is evicted, ms": took_ms,
        "… extents evicted": metrics["cache_evicted_total"],
        "… memory, MB": rss_mb(subscriber.popen.pid),
        "… event loop late at most, ms": metrics["loop_lag_max_seconds"] * 1e3,
    }


def _download(subscriber: Process) -> None:
    for name in (MANY, OTHER):
        url = f"{subscriber.url('subscriber')}/api/download/foo/{name}"
        answer = urllib3.PoolManager().request("GET", url, preload_content=False)
        assert answer.status == 200
        for _ in answer.stream(1 << 20):
            pass
