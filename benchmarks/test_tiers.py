"""What a slow link costs, and what a tier at its near end saves: 1, 4 and 16 readers on a LAN of one dataset.

The link is simulated (20 ms there and back, 100 Mbit/s each way); all else are real processes on this
machine. ``make bench-tiers`` prints a table, and the same as a line of JSON. The dataset takes
``CATERVA2_BENCH_BYTES`` of memory, 48 MiB by default.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.stacked import Way, port_of

import caterva2
from caterva2.testing.network import Network
from caterva2.testing.processes import ForkedService
from caterva2.testing.samples import write_large
from caterva2.testing.waiting import wait_until

DELAY_S = 0.010
BYTES_PER_S = 100e6 / 8

SLAB_BYTES = 64 * 512 * 384 * 4
ARRAY_BYTES = int(os.environ.get("CATERVA2_BENCH_BYTES", str(SLAB_BYTES)))
SHAPE = (64 * max(1, ARRAY_BYTES // SLAB_BYTES), 512, 384)
NAME = "foo/waves.b2nd"

READERS = (1, 4, 16)
ROUNDS = 3

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Cell:
    """What was measured of one arrangement with so many readers, one value for each round (or reader)."""

    first_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    wan_bytes: list[int] = field(default_factory=list)


class Site:
    """A broker and a publisher at the far end of a slow link; what is at the near end comes and goes."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.file = write_large(directory / "root" / "waves.b2nd", SHAPE)
        self.way = Way(stack.enter_context(Network()), delay_s=DELAY_S, bytes_per_s=BYTES_PER_S)
        self._number = 0
        broker = self.start(stack, "broker")
        self.way.broker.target = port_of(broker)
        self.broker = f"http://127.0.0.1:{self.way.broker.port}"
        data = f"http://127.0.0.1:{self.way.data.port}"
        published = ["foo", str(self.file.parent), "--url", data, "--broker", broker]
        self.way.data.target = port_of(self.start(stack, "publisher", *published))

    def start(self, stack: ExitStack, *command: str) -> str:
        """Start a service with a state of its own, until the stack is left; return its URL."""
        self._number += 1
        state = self.directory / f"state{self._number}"
        arguments = [*command, "--listen", "127.0.0.1:0", "--state", str(state)]
        service = ForkedService(arguments, state.with_suffix(".log"), {"CATERVA2_CONFIG": os.devnull})
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        stack.callback(service.kill)
        stack.callback(service.signal, signal.SIGTERM)
        return service.wait_listening()

    @property
    def wan_bytes(self) -> int:
        """What came over the slow link so far, news and headers included."""
        return sum(link.received_bytes for link in self.way.links)


def each_over_the_link(site: Site, stack: ExitStack, readers: int) -> list[str]:
    return [site.start(stack, "subscriber", "--broker", site.broker) for _ in range(readers)]


def each_below_one_tier(site: Site, stack: ExitStack, readers: int) -> list[str]:
    near = site.start(stack, "broker")
    site.start(stack, "subscriber", "--broker", site.broker, "--republish-to", near)
    return [site.start(stack, "subscriber", "--broker", near) for _ in range(readers)]


def all_at_one(site: Site, stack: ExitStack, readers: int) -> list[str]:
    return [site.start(stack, "subscriber", "--broker", site.broker)] * readers


ARRANGEMENTS: dict[str, Callable[[Site, ExitStack, int], list[str]]] = {
    "a subscriber each, over the link": each_over_the_link,
    "a subscriber each, below one tier": each_below_one_tier,
    "clients of one subscriber": all_at_one,
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "root").mkdir()
    with ExitStack() as stack:
        yield Site(tmp_path, stack)
    for log in tmp_path.glob("*.log"):
        print(*(line for line in log.read_text().splitlines() if '"warning"' in line), sep="\n", end="")
    shutil.rmtree(tmp_path)  # pytest keeps the directories of the last three runs


def knows(url: str) -> bool:
    with caterva2.connect(url) as client:
        return any(root.datasets == 1 for root in client.roots())


def read(urls: list[str], cell: Cell, expected: np.ndarray) -> None:
    """Let a reader for each URL read a block, and when all have, everything; all of them at once."""
    barrier = threading.Barrier(len(urls))

    def one(url: str) -> tuple[float, float, float]:
        with caterva2.connect(url) as client:
            barrier.wait()
            began = time.perf_counter()
            block = client.read(NAME, (slice(0, 4), slice(0, 4), slice(0, 4)))
            first_s = time.perf_counter() - began
            np.testing.assert_array_equal(block, expected)
            barrier.wait()
            began = time.perf_counter()
            array = client.read(NAME)
            assert array.shape == SHAPE
            return first_s, began, time.perf_counter()

    with ThreadPoolExecutor(len(urls)) as pool:
        took = list(pool.map(one, urls))
    cell.first_s += [first_s for first_s, _, _ in took]
    cell.whole_s.append(max(ended for _, _, ended in took) - min(began for _, began, _ in took))


def test_tiers(site: Site) -> None:
    cells: dict[tuple[str, int, str], Cell] = defaultdict(Cell)
    expected = _block(site.file)
    for _ in range(ROUNDS):
        for what, arrange in ARRANGEMENTS.items():
            for readers in READERS:
                with ExitStack() as stack:
                    before = site.wan_bytes
                    urls = arrange(site, stack, readers)
                    wait_until(lambda urls=urls: all(map(knows, set(urls))), 60)
                    for state in ("cold", "warm"):
                        cell = cells[what, readers, state]
                        read(urls, cell, expected)
                        cell.wan_bytes.append(site.wan_bytes - before)
                        before = site.wan_bytes
    report(site.file.stat().st_size, cells)
    for (what, _, state), cell in cells.items():
        if state == "warm":
            assert max(cell.wan_bytes) < 0.05 * site.file.stat().st_size
        elif _is_once(what):
            assert max(cell.wan_bytes) < 1.1 * site.file.stat().st_size


def _is_once(what: str) -> bool:
    """Whether everything should cross the link once, however many readers there are."""
    return ARRANGEMENTS[what] is not each_over_the_link


def _block(file: Path) -> np.ndarray:
    import blosc2

    return blosc2.open(str(file), mode="r")[0:4, 0:4, 0:4]


def report(stored_bytes: int, cells: dict[tuple[str, int, str], Cell]) -> None:
    decoded = int(np.prod(SHAPE)) * 4
    link = f"{2e3 * DELAY_S:.0f} ms, {BYTES_PER_S * 8e-6:.0f} Mbit/s"
    rows = [
        {
            "arrangement": what,
            "readers": readers,
            "cache": state,
            "wan_share": statistics.median(cell.wan_bytes) / stored_bytes,
            "first_p50_ms": statistics.median(cell.first_s) * 1e3,
            "first_max_ms": max(cell.first_s) * 1e3,
            "mb_per_s": readers * decoded / 1e6 / statistics.median(cell.whole_s),
            "seconds": statistics.median(cell.whole_s),
        }
        for (what, readers, state), cell in cells.items()
    ]
    print(
        f"\n\n{decoded / 1e6:.0f} MB, stored {stored_bytes / 1e6:.1f} MB: at least "
        f"{stored_bytes / BYTES_PER_S:.1f} s over the link ({link}). {ROUNDS} rounds, medians; load of the "
        f"machine {os.getloadavg()[0]:.1f}\n"
    )
    print("| readers on the LAN | | cache | over the link / size | first byte p50, max | all of it | in |")
    print("|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row["cache"], row["readers"])):
        print(
            f"| {row['readers']} | {row['arrangement']} | {row['cache']} | {row['wan_share']:.3f} "
            f"| {row['first_p50_ms']:.0f}, {row['first_max_ms']:.0f} ms | {row['mb_per_s']:.0f} MB/s "
            f"| {row['seconds']:.2f} s |"
        )
    print(f"\n{json.dumps({'stored_bytes': stored_bytes, 'decoded_bytes': decoded, 'rows': rows})}")
