"""An array of ever more chunks: what it takes until it is known, and until its first element is there."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import urllib3
from benchmarks.growth.table import Table, ms, percentile
from benchmarks.services import Three, cpu_s, rss_mb
from tests.conftest import Site

import caterva2
from caterva2.testing.samples import write_many

__all__ = ["arrays"]

NAME = "many.b2nd"
TILE = (16, 32)
WARM = 200


def arrays(directory: Path, sides: Iterable[int]) -> Table:
    table = Table("an array of so many chunks")
    for side in sides:
        place = directory / f"array{side}"
        (place / "root").mkdir(parents=True)
        with closing(Site(place)) as site:
            table.add(f"{side * side:,}", _column(Three(site, place / "root"), side))
        (place / "root" / NAME).unlink()
    return table


def _column(three: Three, side: int) -> dict[str, float]:
    staged = write_many(three.site.directory / "staged", (side, side))
    publisher, subscriber = three.publisher(), three.subscriber()
    pids = publisher.popen.pid, subscriber.popen.pid
    three.wait_ready(subscriber, 0)
    before = cpu_s(pids[0])
    memory_mb = [rss_mb(pid) for pid in pids]
    began = time.perf_counter()
    size = staged.stat().st_size
    staged.replace(three.root / NAME)
    three.wait_ready(subscriber, 1)
    column = {
        "file, MB": size / 1e6,
        "until a subscriber knows, ms (500 of it are for settling)": (time.perf_counter() - began) * 1e3,
        "… of it the publisher works, CPU ms": (cpu_s(pids[0]) - before) * 1e3,
    }
    url = subscriber.url("subscriber")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        column |= pool.submit(_read, url, side).result()
    metrics = three.metrics("subscriber", subscriber)
    column["bytes from the publisher, KB"] = metrics["upstream_bytes_total"] / 1e3
    info = urllib3.request("GET", f"{url}/api/info/foo/{NAME}").data
    column["info, bytes"] = len(info)
    for what, pid, least in zip(("publisher", "subscriber"), pids, memory_mb, strict=True):
        column[f"memory of the {what}, MB more than before"] = rss_mb(pid) - least
    return column


def _read(url: str, side: int) -> dict[str, float]:
    """Read as a client that is new, in a process of its own."""
    rng = np.random.default_rng(1)
    with caterva2.connect(url) as client:
        client.roots()
        least_mb = rss_mb(os.getpid())
        at = side * TILE[0] // 2, side * TILE[1] // 2
        first_ms = ms(lambda: client[f"foo/{NAME}"][at])
        array = client[f"foo/{NAME}"]
        warm = [ms(lambda: array[at]) for _ in range(WARM)]
        places = rng.integers(0, (side * TILE[0], side * TILE[1]), (WARM, 2)).tolist()
        cold = [ms(lambda place=place: array[tuple(place)]) for place in places]
        return {
            "opened and its first element read, ms": first_ms,
            "the same element again, ms": percentile(warm, 0.5),
            "another element, not cached, ms": percentile(cold, 0.5),
            "memory of the client, MB more than before": rss_mb(os.getpid()) - least_mb,
        }
