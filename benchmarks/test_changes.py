"""How soon a change is known, and what it moves: latency of small files, bytes of a large array.

Services are processes of their own. ``make bench-changes`` prints the tables. The large array takes
``CATERVA2_BENCH_BYTES`` of memory, 1 GiB by default.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import urllib3
from blake3 import blake3

import caterva2
from caterva2.client.events import EventStream
from caterva2.frame.write import write_array, write_slabs
from caterva2.testing.network import Link, Network
from caterva2.testing.processes import ForkedService
from caterva2.testing.samples import write_large
from caterva2.testing.waiting import wait_until

SETTLE_S = 0.5
"""As by default: what a file must be quiet for before a publisher takes it is no part of the latency."""

CHANGES = 200
OTHERS = 100

SLAB = 64
"""Planes of the large array that are a chunk deep: 64 MiB of memory."""

ARRAY_BYTES = int(os.environ.get("CATERVA2_BENCH_BYTES", "1073741824"))
SHAPE = (max(2, ARRAY_BYTES // (4 * SLAB * 512 * 512)) * SLAB, 512, 512)
CHUNKS, BLOCKS = (64, 128, 128), (16, 32, 32)

COMPLETE_S = 300.0

pytestmark = pytest.mark.timeout(1800)


class Site:
    """A broker, a publisher of one root, and a subscriber that reaches it over a link that counts."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.root = directory / "root"
        self.root.mkdir()
        self.url = ""
        self.link: Link

    def start(self) -> None:
        """Start them, once there is something to publish."""
        network = self._stack.enter_context(Network())
        broker = self._start("broker")
        at = ["--broker", broker]
        self.link = network.link(1)
        url = f"http://127.0.0.1:{self.link.port}"
        publisher = self._start("publisher", "foo", str(self.root), "--url", url, *at)
        self.link.target = int(publisher.rpartition(":")[2])
        self.url = self._start("subscriber", *at)

    def _start(self, *command: str) -> str:
        state, log = self._directory / command[0], self._directory / f"{command[0]}.log"
        arguments = [*command, "--listen", "127.0.0.1:0", "--state", str(state)]
        service = ForkedService(arguments, log, {"CATERVA2_CONFIG": os.devnull})
        self._stack.callback(service.kill)
        self._stack.callback(service.signal, signal.SIGTERM)
        return service.wait_listening()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)
    shutil.rmtree(tmp_path)  # pytest keeps the directories of the last three runs


# -- latency -----------------------------------------------------------------------------------------


def small(file: Path, serial: int) -> None:
    write_array(file, np.full((10, 10), serial), chunks=(5, 10), blocks=(5, 5))


def settled_at(file: Path) -> float:
    """Return when a publisher may take a file: ``settle_s`` after its last change."""
    status = file.stat()
    return max(status.st_mtime, status.st_ctime) + SETTLE_S


def heard(stream: EventStream, path: str) -> tuple[float, float]:
    """Return when the next event of a dataset was seen by the subscriber, and when it arrives here."""
    for event in stream:
        if event.path == path:
            return event.time, time.time()
    raise AssertionError("the stream of events ended")


def latencies(site: Site, change: Callable[[int], None]) -> tuple[list[float], list[float]]:
    """Change a dataset again and again; returns the seconds until it was known, and until it was heard."""
    known, told = [], []
    with caterva2.connect(site.url) as client:
        wait_until(lambda: "foo/x.b2nd" in client)
        time.sleep(2 * SETTLE_S)  # nothing is under way any more
        with client.events("foo") as stream:
            for serial in range(CHANGES):
                change(serial)
                settled = settled_at(site.root / "x.b2nd")
                seen_at, heard_at = heard(stream, "foo/x.b2nd")
                known.append(seen_at - settled)
                told.append(heard_at - settled)
        assert next(stream, None) is None  # it lets go of its connection
    return known, told


def print_latencies(title: str, rows: dict[str, list[float]]) -> None:
    print(f"\n\n| {title}, {CHANGES} changes | p50 ms | p90 ms | p99 ms | max ms |\n|---|---|---|---|---|")
    for what, seconds in rows.items():
        numbers = [*np.percentile(seconds, [50, 90, 99]), max(seconds)]
        print(f"| {what} | " + " | ".join(f"{1000 * number:.1f}" for number in numbers) + " |")


def test_latency_of_one_file(site: Site) -> None:
    small(site.root / "x.b2nd", -1)
    site.start()
    known, told = latencies(site, lambda serial: small(site.root / "x.b2nd", serial))
    rows = {"in the subscriber's catalogue": known, "heard by its client": told}
    print_latencies("one file is replaced", rows)


def test_latency_among_a_hundred_files(site: Site) -> None:
    names = [f"other{number}.b2nd" for number in range(OTHERS)]
    names.insert(OTHERS // 2, "x.b2nd")
    staged = site.root.parent / "staged"
    staged.mkdir()

    def change(serial: int) -> None:
        for name in names:
            small(staged / name, serial)
        for name in names:
            (staged / name).replace(site.root / name)

    change(-1)
    site.start()
    known, told = latencies(site, change)
    rows = {"in the subscriber's catalogue": known, "heard by its client": told}
    print_latencies(f"a file is replaced while {OTHERS} others are", rows)


# -- bytes moved -------------------------------------------------------------------------------------


class Large:
    """An array in the root of a site, and a copy out of sight that is changed and then put in its place."""

    def __init__(self, file: Path, staged: Path) -> None:
        self.file, self.staged = file, staged
        self._random = np.random.default_rng(7)

    def noise(self, *shape: int) -> np.ndarray:
        return self._random.standard_normal(shape, dtype=np.float32)

    # Each prepares a change and returns what makes it: that is what is timed

    def touch(self) -> Callable[[], object]:
        return self.file.touch

    def metadata(self) -> Callable[[], object]:
        with self._copy() as array:
            array.schunk.vlmeta["note"] = "changed"
        return self._replace

    def one_chunk(self) -> Callable[[], object]:
        return self._chunks(1)

    def one_percent(self) -> Callable[[], object]:
        return self._chunks(max(2, round(0.01 * SHAPE[0] / SLAB * 16)))

    def _chunks(self, count: int) -> Callable[[], object]:
        with self._copy() as array:
            total = array.shape[0] // SLAB * 16
            for number in range(total // (2 * count), total, max(1, total // count)):
                z, y, x = number // 16 * SLAB, number // 4 % 4 * 128, number % 4 * 128
                array[z : z + SLAB, y : y + 128, x : x + 128] = self.noise(*CHUNKS)
        return self._replace

    def append(self) -> Callable[[], object]:
        with self._copy() as array:
            planes = array.shape[0]
            array.resize((planes + SLAB, *SHAPE[1:]))
            array[planes:] = self.noise(SLAB, *SHAPE[1:])
        return self._replace

    def copy(self) -> Callable[[], object]:
        with self._copy():
            pass
        return self._replace

    def prepend(self) -> Callable[[], object]:
        return self._rewrite(1, lambda slab: slab)

    def same_values(self) -> Callable[[], object]:
        """Several threads write the blocks of a chunk in the order in which they are done with them."""
        blosc2.set_nthreads(2)
        try:
            return self._rewrite(0, lambda slab: slab)
        finally:
            blosc2.set_nthreads(1)

    def rewrite(self) -> Callable[[], object]:
        return self._rewrite(0, lambda slab: slab * np.float32(1.01))

    def _rewrite(self, new_slabs: int, changed: Callable[[np.ndarray], np.ndarray]) -> Callable[[], object]:
        old = blosc2.open(str(self.file), mode="r")

        def slabs() -> Iterator[np.ndarray]:
            for _ in range(new_slabs):
                yield self.noise(SLAB, *SHAPE[1:])
            for start in range(0, old.shape[0], SLAB):
                yield changed(old[start : start + SLAB])

        shape = (old.shape[0] + new_slabs * SLAB, *SHAPE[1:])
        write_slabs(self.staged, shape, np.float32, slabs(), chunks=CHUNKS, blocks=BLOCKS)
        return self._replace

    @contextmanager
    def _copy(self) -> Iterator[Any]:
        shutil.copyfile(self.file, self.staged)
        array = blosc2.open(str(self.staged), mode="a")
        yield array
        del array

    def _replace(self) -> None:
        self.staged.replace(self.file)


KINDS: dict[str, Callable[[Large], Callable[[], object]]] = {
    "touched": Large.touch,
    "metadata changed": Large.metadata,
    "one chunk changed": Large.one_chunk,
    "1 % of the chunks changed": Large.one_percent,
    "64 planes appended": Large.append,
    "replaced by a copy": Large.copy,
    "64 planes put in front": Large.prepend,
    "same values, by 2 threads": Large.same_values,
    "rewritten": Large.rewrite,
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let equal values become equal chunks."""
    before = blosc2.set_nthreads(1)
    yield
    blosc2.set_nthreads(before)


def stored_chunks(file: Path) -> dict[bytes, int]:
    """Return the compressed size of each chunk of a file, by digest."""
    array = blosc2.open(str(file), mode="r")
    chunks = (array.schunk.get_chunk(number) for number in range(array.schunk.nchunks))
    return {blake3(chunk).digest(): len(chunk) for chunk in chunks}


def copied_bytes(url: str) -> int | None:
    """Return how much a subscriber says that it copied from old versions to new ones so far."""
    found = [
        line.split()[1]
        for line in urllib3.request("GET", f"{url}/metrics").data.decode().splitlines()
        if line.startswith("caterva2_subscriber_cache_taken_over_bytes_total ")
    ]
    return int(float(found[0])) if found else None


def follow_all(client: caterva2.Client) -> None:
    follow: Any = client.follow
    try:
        follow("foo", mode="full")
    except TypeError as error:
        pytest.fail(f"this release cannot keep datasets complete: {error}")


def read_all(client: caterva2.Client, path: str) -> int:
    return sum(map(len, urllib3.request("GET", client.url(path), preload_content=False).stream(1 << 20)))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("how", ["followed", "read"])
def test_bytes_moved(site: Site, how: str) -> None:
    """All of the array is here; it changes; what comes until all of it is here again.

    ``followed``: the subscriber keeps it complete. ``read``: a client reads all of it once that is known.
    """
    file = site.root / "large.b2nd"
    write_large(file, SHAPE)
    large = Large(file, site.root.parent / "staged.b2nd")
    site.start()
    sizes = f"{4 * np.prod(SHAPE) / 2**20:.0f} MiB of float32, {file.stat().st_size / 1e6:.0f} MB in the file"
    print(f"\n\n{how}: {sizes}\n")
    print("| kind of change | MB changed | MB received | received / changed | s until complete | MB copied |")
    print("|---|---|---|---|---|---|")
    with caterva2.connect(site.url) as client:
        wait_until(lambda: "foo/large.b2nd" in client)
        if how == "followed":
            follow_all(client)
        else:
            read_all(client, "foo/large.b2nd")
        wait_until(lambda: client.info("foo/large.b2nd")["complete"], COMPLETE_S)
        for kind, prepare in KINDS.items():
            print(row(site, client, large, kind, prepare(large), read=how == "read"), flush=True)


def row(
    site: Site, client: caterva2.Client, large: Large, kind: str, change: Callable[[], object], *, read: bool
) -> str:
    """Make a change, wait until all of it is here, and return a line of the table."""
    before = stored_chunks(large.file)
    etag, received, copied = etag_of(client), site.link.received_bytes, copied_bytes(site.url)
    change()
    began = time.perf_counter()
    wait_until(lambda: etag_of(client) != etag, COMPLETE_S)
    if read:
        assert read_all(client, "foo/large.b2nd") == large.file.stat().st_size
    wait_until(lambda: client.info("foo/large.b2nd")["complete"], COMPLETE_S)
    took = time.perf_counter() - began
    received = site.link.received_bytes - received
    changed = sum(size for name, size in stored_chunks(large.file).items() if name not in before)
    ratio = f"{received / changed:.3f}" if changed else "-"
    now = copied_bytes(site.url)
    local = "-" if copied is None or now is None else f"{(now - copied) / 1e6:.1f}"
    return f"| {kind} | {changed / 1e6:.2f} | {received / 1e6:.3f} | {ratio} | {took:.2f} | {local} |"


def etag_of(client: caterva2.Client) -> str:
    (found,) = [entry.etag for entry in client.list("foo")]
    return str(found)
