"""Small slices beside those who take much: how long they wait, and how late the event loop is."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from benchmarks.growth.table import Table, percentile
from benchmarks.services import Three, cpu_s
from tests.conftest import Process, Site

import caterva2
from caterva2.testing.samples import write_large, write_small

__all__ = ["fairness"]

NAME = "foo/waves.b2nd"
SLICES = 600
SLOW_BYTES_PER_S = 100_000
FILES = 1000

LATE = "20 ms"
LATE_BUCKET = "loop_lag_seconds_bucket[0.02]"

Beside = Callable[[str, Event], None]
"""Does something at a URL, over and over, until it is told to end."""


def fairness(directory: Path, side: int) -> Table:
    """Measure with an array of ``side`` x 512 x 512 float32."""
    table = Table("slices of 10³ by one client, while")
    shape = (side, 512, 512)
    (directory / "root").mkdir(parents=True)
    write_large(directory / "root" / "waves.b2nd", shape)
    with closing(Site(directory)) as site:
        three = Three(site, directory / "root")
        publisher, subscriber = three.publisher(), three.subscriber()
        three.wait_ready(subscriber, 1)
        url = subscriber.url("subscriber")
        with caterva2.connect(url) as client:
            client[NAME][...]
        for what, beside, count in CASES:
            with _beside(beside, url, count):
                table.add(what, _slices(three, subscriber, shape))
        with _beside(_small, url, 8), _beside(_whole, url, 1), _beside(_slow, url, 1):
            write_small(directory / "root" / "small", FILES)
            column = _slices(three, subscriber, shape)
            three.wait_ready(subscriber, 1 + FILES)
            table.add(f"all of that, 8 more such clients, and {FILES:,} new files", column)
        late_ms = three.metrics("publisher", publisher)["loop_lag_max_seconds"] * 1e3
        table.title += f" (the publisher's event loop late at most {late_ms:.0f} ms)"
    return table


def _slices(three: Three, subscriber: Process, shape: tuple[int, ...]) -> dict[str, float]:
    rng = np.random.default_rng(2)
    places = rng.integers(0, [length - 10 for length in shape], (SLICES, 3)).tolist()
    pid, took = subscriber.popen.pid, []
    before, cpu, began = three.metrics("subscriber", subscriber), cpu_s(pid), time.perf_counter()
    with caterva2.connect(subscriber.url("subscriber")) as client:
        array = client[NAME]
        for place in places:
            at = time.perf_counter()
            array[tuple(slice(start, start + 10) for start in place)]
            took.append(time.perf_counter() - at)
    seconds, after = time.perf_counter() - began, three.metrics("subscriber", subscriber)
    looks, in_time = (after[name] - before[name] for name in ("loop_lag_seconds_count", LATE_BUCKET))
    return {
        "p50, ms": percentile(took, 0.5) * 1e3,
        "p95, ms": percentile(took, 0.95) * 1e3,
        "p99, ms": percentile(took, 0.99) * 1e3,
        "longest, ms": max(took) * 1e3,
        "the subscriber works, % of a core": (cpu_s(pid) - cpu) / seconds * 100,
        f"its event loop late by more than {LATE}, % of the time": 100 * (looks - in_time) / looks,
    }


# -- what others do meanwhile --------------------------------------------------------------------------


def _whole(url: str, end: Event) -> None:
    with caterva2.connect(url) as client:
        while not end.is_set():
            client[NAME][...]


def _whole_elsewhere(url: str, end: Event) -> None:
    os.nice(19)  # as if it had processors of its own: it does not take these from who is measured
    _whole(url, end)


def _download(url: str, end: Event) -> None:
    while not end.is_set():
        for _ in _pieces(url, 1 << 20):
            if end.is_set():
                return


def _slow(url: str, end: Event) -> None:
    piece = SLOW_BYTES_PER_S // 10
    for _ in _pieces(url, piece):
        if end.wait(0.1):
            return


def _small(url: str, end: Event) -> None:
    rng = np.random.default_rng()
    with caterva2.connect(url) as client:
        array = client[NAME]
        while not end.is_set():
            start = [int(rng.integers(0, length - 10)) for length in array.shape]
            array[tuple(slice(at, at + 10) for at in start)]


def _pieces(url: str, size: int) -> Iterator[bytes]:
    """Yield a download in pieces, taken from the system one by one, and no more than that."""
    parts = urlsplit(url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect((parts.hostname, parts.port))
        head = f"GET /api/download/{NAME} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        while piece := connection.recv(size):
            yield piece


def _run(beside: Beside, url: str, end: Event, begun: Event) -> None:
    begun.set()
    beside(url, end)


@contextmanager
def _beside(beside: Beside | None, url: str, count: int) -> Iterator[None]:
    """Let some clients do something while inside, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    end = context.Event()
    started = [context.Event() for _ in range(count if beside else 0)]
    clients = [context.Process(target=_run, args=(beside, url, end, begun), daemon=True) for begun in started]
    for client in clients:
        client.start()
    try:
        for begun in started:
            begun.wait()
        if beside is not None:
            threading.Event().wait(2.0)  # it is at full speed by then
        yield
    finally:
        end.set()
        for client in clients:
            client.join(10)
            client.kill()


CASES: list[tuple[str, Beside | None, int]] = [
    ("nothing else happens", None, 0),
    ("another reads the whole array", _whole, 1),
    ("… and leaves the processors to others", _whole_elsewhere, 1),
    ("another downloads the file", _download, 1),
    (f"another downloads it at {SLOW_BYTES_PER_S // 1000} KB/s", _slow, 1),
    ("8 others read such slices", _small, 8),
]
