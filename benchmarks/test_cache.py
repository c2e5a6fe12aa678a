"""Reads through a subscriber that has the data, has to fetch it, and has to evict for it; memory of a crowd.

Services are processes of their own. ``make bench-cache`` prints a table: its ratios hold on any machine, the
seconds do not.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import caterva2
from caterva2.testing.samples import write_large
from caterva2.testing.waiting import wait_until

MIB = 1 << 20
SLAB = (64, 512, 512)
SLAB_MIB = 64
SLABS = [f"slab{number}.b2nd" for number in range(6)]
LARGE, LARGE_SHAPE = "large.b2nd", (1024, 512, 512)
PART = 128
"""Planes of the large array that a client asks for at a time: 128 MiB, so that eight fit in memory here."""

CLIENTS = 8
ROUNDS = 3

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not Path("/proc").exists(), reason="peak memory is read from /proc"),
]


@contextmanager
def service(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run a service; gives its URL and process number."""
    command = [sys.executable, "-m", "caterva2", *arguments, "--listen", "127.0.0.1:0"]
    environment = os.environ | {"CATERVA2_CONFIG": os.devnull}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            url = next(found[1] for line in lines if (found := re.search(r"listening.*?(http://\S+)", line)))
            drain = threading.Thread(target=lambda: [None for _ in lines])
            drain.start()
            yield url, process.pid
        finally:
            process.terminate()
            process.wait()
        drain.join()


class Bench:
    """A broker and a publisher of the arrays; subscribers come and go."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.root.mkdir()
        first, *others = (self.root / name for name in SLABS)
        write_large(first, SLAB)
        for other in others:
            other.write_bytes(first.read_bytes())
        write_large(self.root / LARGE, LARGE_SHAPE)
        self.stored_bytes = first.stat().st_size
        self.broker, _ = stack.enter_context(service("broker", "--state", str(directory / "broker")))
        publisher = ["publisher", "foo", str(self.root), "--state", str(directory / "publisher")]
        stack.enter_context(service(*publisher, "--broker", self.broker))
        self._subscribers = 0

    @contextmanager
    def subscriber(self, *options: str) -> Iterator[tuple[str, int]]:
        """Run a subscriber with an empty cache that knows all arrays."""
        self._subscribers += 1
        state = str(self.directory / f"subscriber{self._subscribers}")
        with service("subscriber", "--broker", self.broker, "--state", state, *options) as (url, pid):
            with caterva2.connect(url) as client:
                wait_until(lambda: _has(client, [*SLABS, LARGE]), 60)
            yield url, pid


def _has(client: caterva2.Client, names: list[str]) -> bool:
    try:
        return all(client[f"foo/{name}"] is not None for name in names)
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path_factory.mktemp("bench"), stack)


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, float, str]]]:
    """Lines of what, number, unit; printed at the end, with ratios against the first."""
    rows: list[tuple[str, float, str]] = []
    yield rows
    first = rows[0][1] if rows else 1.0
    print(f"\n\n{'':54}{'median':>10}{'ratio':>8}")
    for what, number, unit in rows:
        ratio = f"{number / first:8.1f}" if unit == "s" else ""
        print(f"{what:54}{number:>8.{3 if unit == 's' else 0}f} {unit:3}{ratio}")


def slabs_s(url: str) -> list[float]:
    """Read each slab once; returns the seconds of each."""
    took = []
    with caterva2.connect(url) as client:
        for name in SLABS:
            array = client[f"foo/{name}"]
            started = time.perf_counter()
            assert array[...].shape == SLAB
            took.append(time.perf_counter() - started)
    return took


def peak_rss_mib(pid: int) -> float:
    """Return the most memory that a process ever had resident."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def test_reads_of_64_mib(bench: Bench, table) -> None:
    with bench.subscriber() as (url, _):
        cold = slabs_s(url)
        warm = [second for _ in range(ROUNDS) for second in slabs_s(url)]
    table.append((f"{SLAB_MIB} MiB, warm", statistics.median(warm), "s"))
    table.append((f"{SLAB_MIB} MiB, cold", statistics.median(cold), "s"))
    for what, slabs in (("evicting (room for 3 of 6)", 3.3), ("passed through (room for none)", 0.5)):
        with bench.subscriber("--quota", str(int(bench.stored_bytes * slabs))) as (url, _):
            slabs_s(url)
            took = slabs_s(url)
        table.append((f"{SLAB_MIB} MiB, {what}", statistics.median(took), "s"))


def test_memory_of_a_subscriber_whose_eight_clients_read_1_gib_each(bench: Bench, table) -> None:
    def read(url: str) -> int:
        nbytes = 0
        with caterva2.connect(url) as client:
            array = client[f"foo/{LARGE}"]
            for start in range(0, LARGE_SHAPE[0], PART):
                nbytes += array[start : start + PART].nbytes
        return nbytes

    with bench.subscriber() as (url, pid):
        before = peak_rss_mib(pid)
        started = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as threads:
            read_bytes = sum(threads.map(read, [url] * CLIENTS))
        took = time.perf_counter() - started
        peak = peak_rss_mib(pid)
    assert read_bytes == CLIENTS * int(np.prod(LARGE_SHAPE)) * 4
    each = took / (read_bytes / MIB / SLAB_MIB)
    table.append((f"{SLAB_MIB} MiB of {CLIENTS} clients who read 1 GiB each, cold", each, "s"))
    table.append((f"peak RSS of the subscriber with these {CLIENTS} clients", peak, "MiB"))
    table.append(("    and before they came", before, "MiB"))
