"""What a small answer costs a service that runs already: CPU, requests per second and latency.

    python benchmarks/hot_path.py URL PID foo/a.b2nd [--seconds 2] [--connections 1,16]

Requests are written to raw sockets by one loop, so that next to all that is measured is the service. CPU is
what the process PID used meanwhile, from ``/proc``, in milliseconds for each request.
"""

from __future__ import annotations

import argparse
import os
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

NPY = "application/x-npy"

Requests = Callable[[random.Random], bytes]
"""Makes the next request."""


@dataclass(slots=True)
class Row:
    """What was measured of one kind of request."""

    name: str
    connections: int
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.connections} | {self.per_s:.0f} | {self.p50_ms:.2f} | {self.p99_ms:.2f} "
            f"| {self.cpu_ms:.3f} |"
        )


class Connection:
    """One client: its next request goes out when the answer is here."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._missing = 0
        self._head = b""
        self._began = 0.0

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._head, self._missing, self._began = b"", -1, time.perf_counter()
        self.socket.sendall(request)

    def take(self) -> float | None:
        """Read what is there; returns the seconds that the answer took, once it is here."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the service closed the connection")
        if self._missing < 0:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return None
            if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 206")):
                raise ConnectionError(self._head.decode(errors="replace"))
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self._missing = int(length.split(b":")[1]) - len(body)
        else:
            self._missing -= len(data)
        return time.perf_counter() - self._began if not self._missing else None


def cpu_s(pid: int) -> float:
    """Return the CPU that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(connections: list[Connection], requests: Requests, seconds: float, seed: int) -> list[float]:
    """Keep all connections busy for a while; returns the seconds that each answer took."""
    rng, took = random.Random(seed), []
    stop = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.ask(requests(rng))
        waiting = len(connections)
        while waiting:
            for key, _ in selector.select():
                if (one := key.data.take()) is None:
                    continue
                took.append(one)
                if time.perf_counter() < stop:
                    key.data.ask(requests(rng))
                else:
                    waiting -= 1
    return took


def measure(url: str, pid: int, name: str, requests: Requests, count: int, seconds: float) -> Row:
    """Return what one kind of request costs with `count` connections."""
    split = urlsplit(url)
    connections = [Connection(split.hostname or "", split.port or 80) for _ in range(count)]
    load(connections, requests, 0.3, seed=0)
    cpu, began = cpu_s(pid), time.perf_counter()
    took = sorted(load(connections, requests, seconds, seed=1))
    passed, used = time.perf_counter() - began, cpu_s(pid) - cpu
    for connection in connections:
        connection.socket.close()
    n = len(took)
    return Row(name, count, n / passed, 1e3 * took[n // 2], 1e3 * took[int(0.99 * n)], 1e3 * used / max(n, 1))


def kinds(path: str, shape: tuple[int, ...], size: int) -> Iterator[tuple[str, Requests]]:
    """Yield the kinds of requests by name: those on slices are all of other places."""

    def get(target: str, *headers: str) -> bytes:
        return "\r\n".join((f"GET {target} HTTP/1.1", "Host: x", *headers, "", "")).encode()

    def element(rng: random.Random) -> bytes:
        where = ",".join(str(rng.randrange(length)) for length in shape)
        return get(f"/api/fetch/{path}?slice_={where}", f"Accept: {NPY}")

    def cube(rng: random.Random) -> bytes:
        starts = [rng.randrange(max(1, length - 10)) for length in shape]
        where = ",".join(f"{start}:{start + 10}" for start in starts)
        return get(f"/api/fetch/{path}?slice_={where}", f"Accept: {NPY}")

    def stored(rng: random.Random) -> bytes:
        start = rng.randrange(size - 70_000)
        return get(f"/data/{path}", f"Range: bytes={start}-{start + 69_999}")

    def same(rng: random.Random) -> bytes:
        return element(random.Random(rng.randrange(40)))

    yield "/health", lambda _: get("/health")
    yield "info", lambda _: get(f"/api/info/{path}")
    yield "element .npy", element
    yield "10³ .npy", cube
    yield "one of 40 elements .npy", same
    yield "70 kB of /data/", stored


def main() -> None:
    """Measure all kinds, and print a Markdown table."""
    import caterva2

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("pid", type=int)
    parser.add_argument("path")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", default="1,16")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    dataset = caterva2.connect(given.url)[given.path]
    shape, size = tuple(dataset.shape), int(dataset.info["size"])
    print("| request | connections | per s | p50 ms | p99 ms | CPU ms |\n|---|---|---|---|---|---|")
    for name, requests in kinds(given.path, shape, size):
        if given.only in name:
            for count in map(int, given.connections.split(",")):
                print(measure(given.url, given.pid, name, requests, count, given.seconds), flush=True)


if __name__ == "__main__":
    main()
