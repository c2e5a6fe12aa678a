"""The past comes back: states and stores from a backup, clocks set back, two owners. No reader goes along."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.testing.waiting import wait_until

from ..conftest import Process, Site
from .conftest import Asker

BEHIND_S = 7200
"""How far a clock is set back, in seconds."""

SET_CLOCK = """
import os, time
behind_s = int(os.environ.get("CLOCK_BEHIND_S", 0))
if behind_s:
    time_ns, time_s = time.time_ns, time.time
    time.time_ns = lambda: time_ns() - behind_s * 10**9
    time.time = lambda: time_s() - behind_s
"""
"""A ``sitecustomize`` that sets the clock of a process."""

NAMES = ("array.b2nd", "large.bin", "small.txt")


def content_of(name: str, number: int, scratch: Path) -> bytes:
    """Return a content; all of one name have the same size, header, index and trailer."""
    rng = np.random.default_rng(number)
    if name == "array.b2nd":
        numbers = rng.integers(0, 1 << 16, (40, 50), np.uint16)
        file = write_array(scratch / "new.b2nd", numbers, chunks=(40, 50), blocks=(10, 50))
        return file.read_bytes()
    return rng.bytes(1_200_000 if name == "large.bin" else 1_000)


class Watch(threading.Thread):
    """Reads datasets through a subscriber all the time: generations never fall, an etag has one content.

    Attributes
    ----------
    falls : list of str
        Generations that fell.
    wrong : list of str
        What should never be read.
    allowed : set of (int, str)
        Statuses that a dataset may have.
    reads : int
    """

    def __init__(self, url: str, written: dict[str, set[bytes]]) -> None:
        super().__init__(name="watch", daemon=True)
        self._url, self._written, self._ask = url, written, Asker()
        self._known: dict[str, int] = {}
        self._contents: dict[str, bytes] = {}
        self._stopped = threading.Event()
        self.falls: list[str] = []
        self.wrong: list[str] = []
        self.allowed: set[tuple[int, str]] = set()
        self.reads = 0

    def run(self) -> None:
        while not self._stopped.wait(0.05):
            for row in self._ask.json(f"{self._url}/api/catalogue/foo")["rows"]:
                self._see(row["path"].removeprefix("foo/"), row["generation"])
            for name in NAMES:
                self._read(name)

    def _read(self, name: str) -> None:
        data = self._ask.get(f"{self._url}/data/foo/{name}")
        if data.status == 200:
            self.reads += 1
            etag = data.headers["ETag"]
            if self._contents.setdefault(etag, data.data) != data.data:
                self.wrong.append(f"{name} at {etag} has two contents")
            if data.data not in self._written[name]:
                self.wrong.append(f"{name} at {etag} was never written so")
            self._see(name, int(data.headers["X-Caterva2-Generation"]))
        elif data.status not in (412, 503) and (data.status, name) not in self.allowed:
            self.wrong.append(f"{name}: {data.status} {data.data!r}")
        info = self._ask.get(f"{self._url}/api/info/foo/{name}")
        if info.status == 200:
            self._see(name, info.json()["generation"])

    def _see(self, name: str, generation: int) -> None:
        if generation < self._known.get(name, 0):
            self.falls.append(f"{name}: {self._known[name]} -> {generation}")
        self._known[name] = generation

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        self._ask.close()


class Group:
    """A broker, a publisher and a subscriber that is watched; their states can be kept and brought back."""

    def __init__(self, site: Site, root: Path) -> None:
        self.site, self.ask, self.root = site, Asker(), root
        self.written: dict[str, set[bytes]] = {name: set() for name in NAMES}
        self._scratch = site.directory / "scratch"
        self._scratch.mkdir()
        (self._scratch / "sitecustomize.py").write_text(SET_CLOCK)
        paths = [str(self._scratch), os.environ.get("PYTHONPATH", "")]
        site.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._listen, self._fresh = "127.0.0.1:0", 0
        for name in NAMES:
            self.write(name, 1)
        self.start_broker()
        site.environment["CATERVA2_BROKER"] = self.broker.url("broker")
        self._listen = self.broker.url("broker").removeprefix("http://")
        self.start_publisher()
        self.url = self.start_subscriber()
        self.converged()
        self.watch = Watch(self.url, self.written)
        self.watch.start()

    def start_broker(self) -> None:
        self.broker = self.site.start("broker", "--listen", self._listen, "--state", self.state("broker"))

    def start_publisher(self, *flags: str, state: str = "publisher", behind_s: int = 0) -> Process:
        self.site.environment["CLOCK_BEHIND_S"] = str(behind_s)
        options = ["--listen", "127.0.0.1:0", "--state", self.state(state), "--settle-s", "0.1", *flags]
        self.publisher = self.site.start("publisher", f"foo={self.root}", *options)
        self.site.environment["CLOCK_BEHIND_S"] = "0"
        return self.publisher

    def start_subscriber(self, state: str = "subscriber") -> str:
        options = ["--listen", "127.0.0.1:0", "--state", self.state(state)]
        return self.site.start("subscriber", *options).url("subscriber")

    def state(self, name: str) -> str:
        return str(self.site.directory / name)

    def write(self, name: str, number: int) -> None:
        """Replace a dataset."""
        content = content_of(name, number, self._scratch)
        self.written[name].add(content)
        (self._scratch / name).write_bytes(content)
        (self._scratch / name).replace(self.root / name)

    def write_all(self, number: int) -> None:
        """Replace all datasets, and wait until the subscriber has them."""
        for name in NAMES:
            self.write(name, number)
        self.converged()

    def keep(self, name: str) -> None:
        """Keep the state of a service that is stopped."""
        shutil.rmtree(self.state(f"{name}.kept"), ignore_errors=True)
        shutil.copytree(self.state(name), self.state(f"{name}.kept"))

    def bring_back(self, name: str) -> None:
        """Set the state of a service that is stopped to what was kept."""
        shutil.rmtree(self.state(name))
        shutil.copytree(self.state(f"{name}.kept"), self.state(name))

    def bring_back_files(self) -> None:
        """Have the files be what the publisher's state knows them as: the directory was set back too.

        Contents and times are set back by a snapshot of the machine. Nothing else sets a ctime, so the
        state is told it instead.
        """
        for name in NAMES:
            self.write(name, 1)
            status = (self.root / name).stat()
            key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            with closing(sqlite3.connect(Path(self.state("publisher")) / "publisher.sqlite")) as db, db:
                db.execute(
                    "UPDATE datasets SET ino = ?, size = ?, mtime_ns = ?, ctime_ns = ? WHERE name = ?",
                    (*key, name),
                )

    def is_equal(self, url: str) -> bool:
        """Whether a subscriber has what is in the directory, and says that this is confirmed."""
        names = sorted(file.name for file in self.root.iterdir())
        root = self.ask.json(f"{url}/api/roots").get("foo", {})
        if root.get("state") != "online" or root["behind"] or self.ask.json(f"{url}/api/list/foo") != names:
            return False
        for name in names:
            answer = self.ask.get(f"{url}/data/foo/{name}")
            if answer.status != 200 or answer.data != (self.root / name).read_bytes():
                return False
            if answer.headers["X-Caterva2-Freshness"] != "fresh":
                return False
        return True

    def converged(self, url: str = "", timeout_s: float = 30.0) -> None:
        wait_until(lambda: self.is_equal(url or self.url), timeout_s)

    def check(self) -> None:
        """Check the end: all is as in the directory, for a fresh subscriber too, and nobody read wrong."""
        self.converged()
        self._fresh += 1
        self.converged(self.start_subscriber(f"fresh{self._fresh}"))
        fresh = self.site.processes.pop()
        fresh.kill()
        fresh.stop()
        reads = self.watch.reads
        wait_until(lambda: self.watch.reads > reads + 2 * len(NAMES))
        assert self.watch.wrong == []

    def begin(self) -> None:
        """Begin a test where the one before ended."""
        self.converged()
        self.watch.falls.clear()
        self.watch.allowed.clear()

    def close(self) -> None:
        self.watch.stop()
        self.ask.close()
        self.site.close()

    def root_info(self) -> dict:
        return self.ask.json(f"{self.url}/api/roots")["foo"]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Group]:
    directory = tmp_path_factory.mktemp("past")
    root = directory / "published"
    root.mkdir()
    group = Group(Site(directory), root)
    yield group
    group.close()


@pytest.fixture
def group(running: Group) -> Group:
    running.begin()
    return running


@pytest.mark.parametrize("behind_s", [0, BEHIND_S])
def test_a_publisher_restored_from_backup(group: Group, behind_s: int) -> None:
    group.publisher.kill()
    group.keep("publisher")
    group.start_publisher()
    group.write_all(2)
    group.write("small.txt", 3)
    group.watch.allowed.add((404, "large.bin"))
    (group.root / "large.bin").rename(group.root / "moved.bin")
    wait_until(lambda: "moved.bin" in group.ask.json(f"{group.url}/api/list/foo"))
    group.publisher.kill()
    (group.root / "moved.bin").rename(group.root / "large.bin")
    group.bring_back("publisher")
    if behind_s:
        group.bring_back_files()
    group.start_publisher(behind_s=behind_s)
    group.check()
    assert group.watch.falls == []
    group.write_all(4)
    assert group.watch.falls == []


def test_a_publisher_that_lost_its_state_and_its_time(group: Group) -> None:
    group.write_all(2)
    group.publisher.kill()
    shutil.rmtree(group.state("publisher"))
    group.write("small.txt", 3)
    group.start_publisher(behind_s=BEHIND_S)
    group.check()
    group.write_all(4)
    assert group.watch.falls == []


def test_a_broker_whose_store_is_set_back_and_then_lost(group: Group) -> None:
    group.broker.stop()
    group.keep("broker")
    group.start_broker()
    group.write_all(2)
    group.publisher.kill()  # nobody puts it right at once
    group.broker.stop()
    group.bring_back("broker")
    group.start_broker()
    wait_until(lambda: group.root_info()["behind"] == len(NAMES))
    group.write("small.txt", 3)
    group.start_publisher()
    group.converged()
    group.broker.stop()
    shutil.rmtree(group.state("broker"))
    group.start_broker()
    group.check()
    group.write_all(4)
    assert group.watch.falls == []


def set_all_back(group: Group) -> None:
    """Set publisher, broker and files back to what they were before the subscriber saw later generations."""
    group.write_all(1)
    for process, name in ((group.publisher, "publisher"), (group.broker, "broker")):
        process.stop()
        group.keep(name)
    group.start_broker()
    group.start_publisher()
    group.write_all(2)
    for process, name in ((group.publisher, "publisher"), (group.broker, "broker")):
        process.stop()
        group.bring_back(name)
    group.bring_back_files()


@pytest.mark.parametrize("behind_s", [0, BEHIND_S])
def test_all_but_the_subscriber_set_back_needs_a_reset(group: Group, behind_s: int) -> None:
    before = group.root_info()["reset_at"]
    set_all_back(group)
    group.start_broker()
    group.start_publisher(behind_s=behind_s)
    seen = {name: group.ask.json(f"{group.url}/api/info/foo/{name}")["etag"] for name in NAMES}
    wait_until(lambda: group.root_info()["behind"] == len(NAMES))
    wait_until(lambda: group.ask.json(f"{group.url}/api/info/foo/array.b2nd")["freshness"] == "unverified")
    assert group.ask.metric(group.url, "caterva2_subscriber_behind") == len(NAMES)
    assert "older" in group.site.run("roots", "--subscriber", group.url).stderr
    for name in NAMES:  # what is here is served on
        assert group.ask.get(f"{group.url}/data/foo/{name}").headers["ETag"].strip('"') == seen[name]
    assert group.watch.falls == []

    group.publisher.kill()
    group.start_publisher("--reset", behind_s=behind_s)
    group.check()
    reset_at = group.root_info()["reset_at"]
    assert reset_at != before
    assert bool(group.watch.falls) == bool(behind_s)  # only numbers of a clock that is wrong go back
    group.watch.falls.clear()

    if not behind_s:
        return
    group.publisher.kill()  # a reset is done once
    group.start_publisher()
    group.write_all(4)
    group.broker.stop()
    group.bring_back("broker")  # of before the reset: its claim resets nothing
    group.start_broker()
    group.converged()
    assert group.root_info()["reset_at"] == reset_at
    assert group.watch.falls == []


def test_two_publishers_of_one_root(group: Group) -> None:
    first = group.publisher
    second = group.start_publisher(state="second", behind_s=BEHIND_S)
    refused = second.wait_for_line(".*root refused.*")
    assert first.url("publisher") in refused[0]
    health = group.ask.json(second.url("publisher") + "/health")
    assert health["status"] == "degraded"
    assert first.url("publisher") in health["refused"]["foo"]
    assert group.root_info()["publisher"] == first.url("publisher")

    first.kill()
    began = time.monotonic()
    group.write("small.txt", 2)
    wait_until(lambda: group.root_info()["publisher"] == second.url("publisher"), 30)
    print(f"taken over {time.monotonic() - began:.1f} s after the owner was killed")
    group.converged()
    assert group.ask.json(second.url("publisher") + "/health")["refused"] == {}

    again = group.start_publisher()
    refused = again.wait_for_line(".*root refused.*")
    assert second.url("publisher") in refused[0]
    again.kill()
    group.publisher = second
    group.write_all(3)
    group.check()
    assert group.watch.falls == []
