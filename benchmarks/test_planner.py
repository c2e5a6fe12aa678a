"""What the planner saves over a slow link: cold reads with it and without it, and the same reads again.

The link is simulated (20 ms there and back, 100 Mbit/s each way); all else are real processes on this
machine. Each read is by a subscriber of its own on which nothing is cached but the head of the dataset, as a
client has opened it; both kinds take turns. ``make bench-planner`` prints a table, and the same as a line of
JSON. The array takes ``CATERVA2_BENCH_BYTES`` of memory, 1 GiB by default.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from tests.stacked import Way, port_of

import caterva2
from caterva2.testing.network import Network
from caterva2.testing.processes import ForkedService
from caterva2.testing.waiting import wait_until

DELAY_S = 0.010
BYTES_PER_S = 100e6 / 8

PLANE_BYTES = 512 * 1024 * 4
ROWS = 64 * max(5, int(os.environ.get("CATERVA2_BENCH_BYTES", str(1 << 30))) // (64 * PLANE_BYTES))
SHAPE = (ROWS, 512, 1024)
NAME = "foo/waves.b2nd"
CUBE = 256
ROUNDS = 3

READS = {
    "element": tuple,
    "10 x 10 x 10": lambda at: tuple(slice(n, n + 10) for n in at),
    "plane x": lambda at: (at[0],),
    "plane y": lambda at: (slice(None), at[1]),
    "plane z": lambda at: (slice(None), slice(None), at[2]),
    "cube of 64 MiB": lambda at: tuple(
        slice(n % (length - CUBE), n % (length - CUBE) + CUBE) for n, length in zip(at, SHAPE, strict=True)
    ),
    "whole": lambda at: (...,),
}
MODES = {"auto": "planned", "never": "blocks"}

pytestmark = pytest.mark.timeout(3600)


def write_waves(file: Path) -> Path:
    """Write a field of three decimals, 32 MB at a time."""
    rng = np.random.default_rng(1)
    array = blosc2.empty(
        SHAPE,
        dtype=np.float32,
        chunks=(64, 64, 128),
        blocks=(4, 64, 128),
        urlpath=str(file),
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE]},
    )
    y, z = np.arange(512)[:, None], np.arange(1024)
    plane = (np.cos(y / 60) * np.sin(z / 90)).astype(np.float32)
    for first in range(0, ROWS, 64):
        rows = np.sin(np.arange(first, first + 64) / 40).astype(np.float32)[:, None, None]
        array[first : first + 64] = np.round(rows * plane + rng.normal(0, 2e-4, (64, 512, 1024)), 3)
    return file


class Site:
    """A broker and a publisher at the far end of a slow link; subscribers at the near end come and go."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.file = write_waves(directory / "root" / "waves.b2nd")
        self.way = Way(stack.enter_context(Network()), delay_s=DELAY_S, bytes_per_s=BYTES_PER_S)
        self._number = 0
        broker = self.start(stack, "broker")
        self.way.broker.target = port_of(broker)
        data = f"http://127.0.0.1:{self.way.data.port}"
        publisher = self.start(
            stack, "publisher", "foo", str(self.file.parent), "--url", data, "--broker", broker
        )
        self.way.data.target = port_of(publisher)
        with caterva2.connect(publisher) as client:
            wait_until(lambda: NAME in client, 60)
            client.read(NAME, tuple(slice(None, None, 64) for _ in SHAPE))  # makes all pages

    def start(self, stack: ExitStack, *command: str, **environment: str) -> str:
        """Start a service with a state of its own, until the stack is left; return its URL."""
        self._number += 1
        state = self.directory / f"state{self._number}"
        arguments = [*command, "--listen", "127.0.0.1:0", "--state", str(state)]
        environment |= {"CATERVA2_CONFIG": os.devnull}
        service = ForkedService(arguments, state.with_suffix(".log"), environment)
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        stack.callback(service.kill)
        stack.callback(service.signal, signal.SIGTERM)
        return service.wait_listening()

    @property
    def wan_bytes(self) -> int:
        return sum(link.received_bytes for link in self.way.links)

    def read(self, key: Any, mode: str) -> list[tuple[float, int, Any]]:
        """Read with a subscriber of its own, twice; return seconds, bytes over the link, and what came."""
        with ExitStack() as stack:
            broker = f"http://127.0.0.1:{self.way.broker.port}"
            url = self.start(stack, "subscriber", "--broker", broker, CATERVA2_SUBSCRIBER_SLICES=mode)
            client = stack.enter_context(caterva2.connect(url))
            wait_until(lambda: NAME in client, 60)
            array = client[NAME]
            found = []
            for _ in range(2):
                before, began = self.wan_bytes, time.perf_counter()
                got = array[key]
                found.append((time.perf_counter() - began, self.wan_bytes - before, got))
            return found


def test_planner(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    cells: dict[tuple[str, str], list[list[tuple[float, int]]]] = defaultdict(list)
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        site = Site(tmp_path, stack)
        local = blosc2.open(str(site.file), mode="r")
        for number in range(ROUNDS):
            for what, key_of in READS.items():
                if what == "whole" and number:
                    continue  # takes as long as all else
                key = key_of([int(rng.integers(0, length - 10)) for length in SHAPE])
                for mode in MODES:
                    found = site.read(key, mode)
                    if what != "whole":
                        for _, _, got in found:
                            np.testing.assert_array_equal(got, local[key])
                    cells[what, mode].append([(seconds, nbytes) for seconds, nbytes, _ in found])
        report(site.file.stat().st_size, cells)
    shutil.rmtree(tmp_path)  # pytest keeps the directories of the last three runs
    for (what, mode), rounds in cells.items():
        first, again = zip(*rounds, strict=True)
        assert max(nbytes for _, nbytes in again) < 64_000, (what, mode)  # news of the bus alone
        if mode == "auto" and what != "whole":
            assert all(
                planned[1] < blocks[0][1] for planned, blocks in zip(first, cells[what, "never"], strict=True)
            )


def report(stored_bytes: int, cells: dict[tuple[str, str], list[list[tuple[float, int]]]]) -> None:
    rows = []
    for (what, mode), rounds in cells.items():
        first, again = zip(*rounds, strict=True)
        rows.append(
            {
                "read": what,
                "by": MODES[mode],
                "first_ms": statistics.median(seconds for seconds, _ in first) * 1e3,
                "best_ms": min(seconds for seconds, _ in first) * 1e3,
                "wan_kb": statistics.median(nbytes for _, nbytes in first) / 1e3,
                "again_ms": statistics.median(seconds for seconds, _ in again) * 1e3,
                "again_wan_kb": statistics.median(nbytes for _, nbytes in again) / 1e3,
            }
        )
    link = f"{2e3 * DELAY_S:.0f} ms, {BYTES_PER_S * 8e-6:.0f} Mbit/s"
    print(
        f"\n\n{np.prod(SHAPE) * 4 / 1e6:.0f} MB, stored {stored_bytes / 1e6:.1f} MB, over the link ({link}). "
        f"{ROUNDS} rounds, medians; load of the machine {os.getloadavg()[0]:.1f}\n"
    )
    print("| read | by | first, best | over the link | again | over the link |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['read']} | {row['by']} | {row['first_ms']:.0f}, {row['best_ms']:.0f} ms "
            f"| {row['wan_kb']:.0f} kB | {row['again_ms']:.0f} ms | {row['again_wan_kb']:.0f} kB |"
        )
    print(f"\n{json.dumps({'stored_bytes': stored_bytes, 'shape': SHAPE, 'rows': rows})}")
