"""``cat2 demo``: the main job, told step by step, with real services and real data on loopback."""

from __future__ import annotations

import filecmp
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from rich.console import Console

from caterva2.cli.logs import configure_logs
from caterva2.cli.options import Json
from caterva2.cli.output import counted, print_json
from caterva2.client import Array, Client, connect
from caterva2.errors import Caterva2Error, Unavailable, Unsupported
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.samples import write_climate, write_example, write_large

__all__ = ["run"]

ROOT = "foo"
LARGE = f"{ROOT}/model/waves.b2nd"


def run(
    *,
    stay: Annotated[
        bool, Parameter(negative="", help="Keep the services up afterwards, until interrupted.")
    ] = False,
    json: Json = False,
    debug: Annotated[bool, Parameter(help="Show where an error came from.")] = False,
) -> None:
    """Share real data among services on this machine, and tell it step by step.

    Raises
    ------
    Caterva2Error
        If a step does not do what it should.
    """
    configure_logs("debug" if debug else "error")
    began = time.perf_counter()
    console = Console(highlight=False, soft_wrap=True, stderr=json)
    with tempfile.TemporaryDirectory(prefix="caterva2-demo-") as directory:
        story = Story(console, Path(directory))
        story.tell(stay=stay)
    if json:
        print_json({"ok": True, "steps": story.steps, "seconds": time.perf_counter() - began})


class Story:
    """The steps of the demonstration, and what they share.

    Attributes
    ----------
    steps : int
        How many were told.
    """

    def __init__(self, console: Console, directory: Path) -> None:
        self._console = console
        self._published = directory / "published by foo"
        self._state = directory / "state"
        self._downloads = directory / "downloads"
        self.steps = 0
        self._client: Client
        self._running: RunningCluster

    def tell(self, *, stay: bool) -> None:
        """Make the data, start the services, go through the steps."""
        began = time.perf_counter()
        with self._doing("Writing a root of datasets"):
            self._write()
        cluster = Cluster(self._state, {ROOT: self._published}, settle_s=0.2)
        with running_cluster(cluster) as self._running, connect(self._running.url) as self._client:
            self._say("Started", f"a broker, a publisher of root {ROOT!r} and a subscriber, on loopback")
            self._list()
            self._slice()
            self._follow_a_change()
            self._download()
            if stay:
                self._stay(cluster)
            else:
                self._offline()
        self._console.print(f"\n[green]All of it worked[/], in {time.perf_counter() - began:.1f} s.")

    # -- the steps -------------------------------------------------------------------------------

    def _write(self) -> None:
        write_example(self._published)
        try:
            write_climate(self._published / "climate")
        except Unsupported as error:
            self._note(f"without real climate fields: {error}")
            (self._published / "climate").mkdir()
            field = np.linspace(250, 310, 54 * 18 * 432, dtype=np.float32).reshape(54, 18, 432)
            write_array(self._published / "climate" / "surface_temperature.b2nd", field)
        (self._published / "model").mkdir()
        large = write_large(self._published / "model" / "waves.b2nd")
        self._note(f"model/waves.b2nd: {large.stat().st_size / 1e6:.0f} MB compressed, 537 MB in memory")

    def _list(self) -> None:
        self._say("cat2 roots", "what is published")
        for root in self._client.roots():
            self._note(
                f"{root.name}: {root.state}, {counted(root.datasets, 'dataset')}, {root.bytes / 1e6:.1f} MB"
            )
        self._say(f"cat2 list {ROOT}", "its datasets")
        for row in self._client.list(ROOT):
            shape = "x".join(map(str, row.shape)) if row.shape is not None else row.kind
            self._note(f"{row.path:<42} {shape:>14} {row.dtype or '':>10} {row.size / 1e6:>9.3f} MB")

    def _slice(self) -> None:
        array = self._array(LARGE)
        self._say(f"cat2 show '{LARGE}[400, 300, 200:204]'", "a slice, of which nothing is cached here yet")
        with self._moved() as moved:
            values = array[400, 300, 200:204]
        self._note(f"{values}")
        self._note(
            f"moved from publisher to subscriber: {moved[0] / 1e3:.0f} kB of {array.cbytes / 1e6:.0f} MB "
            f"({array.cbytes / max(1, moved[0]):,.0f} times less), each block verified"
        )
        with self._moved() as moved:
            again = array[400, 300, 200:204]
        check(np.array_equal(values, again), "the second read differs")
        check(moved[0] == 0, f"the second read moved {moved[0]} bytes")
        self._note("the second read moved 0 bytes: it came from the cache")

    def _follow_a_change(self) -> None:
        path = f"{ROOT}/climate/surface_temperature.b2nd"
        array = self._array(path)
        before = array[:]
        self._say(f"cat2 follow {path}", "be told of changes, and keep its metadata here")
        self._client.follow(path)
        events = self._client.events(path)
        heard = threading.Thread(target=lambda: next(events), name="events")
        heard.start()
        changed = time.perf_counter()
        write_array(self._published / "climate" / "surface_temperature.b2nd", before + 1, chunks=array.chunks)
        heard.join(timeout=20)
        check(not heard.is_alive(), "the change was not heard")
        after = self._array(path)
        self._note(
            f"its publisher added 1 K: heard {time.perf_counter() - changed:.2f} s after the write; "
            f"mean {np.nanmean(before):.3f} K -> {np.nanmean(after[:]):.3f} K"
        )
        check(np.array_equal(after[:], before + 1, equal_nan=True), "the change was not read right")

    def _download(self) -> None:
        path = f"{ROOT}/climate/surface_temperature.b2nd"
        self._downloads.mkdir()
        self._say(f"cat2 download {path}", "the whole file")
        record = self._client.download(path, self._downloads)
        original = self._published / "climate" / "surface_temperature.b2nd"
        check(filecmp.cmp(record.file, original, shallow=False), "the download differs from the original")
        self._note(f"{record.bytes / 1e6:.3f} MB in {record.seconds:.2f} s, byte for byte what is published")

    def _offline(self) -> None:
        array = self._array(LARGE)
        expected = array[400, 300, 200:204]
        self._running.run(self._running.cluster.stop("publisher"))
        self._running.run(self._running.cluster.stop("broker"))
        self._say("Stopped", "the publisher and the broker: what was read before can still be read")
        check(np.array_equal(array[400, 300, 200:204], expected), "the offline read differs")
        info = self._client.info(LARGE)
        self._note(f"{expected}, marked {info['freshness']!r}")
        try:
            array[0, 0, 0]
        except Unavailable as error:
            self._note(f"and what was not: {error}")
        else:
            raise Caterva2Error("data that is not cached was served without its publisher")

    def _stay(self, cluster: Cluster) -> None:
        for service in (cluster.broker, cluster.publisher, cluster.subscriber):
            self._say(service.name, service.address.url)
        self._note(f"try: cat2 --help; CATERVA2_SUBSCRIBER={self._running.url} cat2 list {ROOT}")
        self._note(f"published directory: {self._published}")
        self._note("Ctrl-C stops them and removes the data")
        wait_for_interrupt()

    # -- helpers ---------------------------------------------------------------------------------

    def _array(self, path: str) -> Array:
        array = self._client[path]
        assert isinstance(array, Array)
        return array

    @contextmanager
    def _moved(self) -> Iterator[list[int]]:
        """Measure the bytes that the subscriber fetches; the list holds the number afterwards."""
        upstream = self._running.cluster.subscriber.origins.stats
        before, moved = upstream.bytes, [0]
        yield moved
        moved[0] = upstream.bytes - before

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        self._console.print(f"[bold]{what}[/] …")
        yield

    def _say(self, what: str, why: str) -> None:
        self.steps += 1
        self._console.print(f"\n[bold cyan]{self.steps}. {what}[/]  {why}")

    def _note(self, text: str) -> None:
        self._console.print(f"   {text}", markup=False)


def check(holds: bool, otherwise: str) -> None:
    """Stop the story if it is not true."""
    if not holds:
        raise Caterva2Error(f"the demonstration failed: {otherwise}")


def wait_for_interrupt() -> None:
    """Return on SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sys.stdout.flush()
    if os.name == "nt":  # an untimed wait cannot be interrupted there
        while not stop.wait(0.5):
            pass
    else:
        stop.wait()
