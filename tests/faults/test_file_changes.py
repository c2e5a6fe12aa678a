"""Every way in which a file changes, end to end: what a subscriber answers is what the file is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import blosc2
import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.waiting import wait_until

from .conftest import Asker, noise

SHAPE = (40, 250, 100)
"""Of arrays of 2 MB: larger than what a publisher hashes when it takes a version."""
CHUNKS, BLOCKS = (10, 250, 100), (5, 50, 100)

MANY = 10_000

WRITTEN_S = float(os.environ.get("CATERVA2_WRITTEN_S", "0"))
"""How long files are written at least; by default until they were announced three times."""


class Published:
    """A directory that is published, and what a subscriber says of it."""

    def __init__(self, running: RunningCluster, root: Path) -> None:
        self.running, self.root, self.ask = running, root, Asker()
        self.publisher = running.cluster.publisher

    @property
    def url(self) -> str:
        return self.running.url

    def info(self, name: str) -> dict:
        return self.ask.json(f"{self.url}/api/info/foo/{name}")

    def names(self) -> list[str]:
        return self.ask.json(f"{self.url}/api/list/foo")

    def state(self) -> str:
        return self.ask.json(f"{self.url}/api/roots")["foo"]["state"]

    def write(self, name: str, seed: int = 1) -> Path:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        return write_array(self.root / name, noise(seed, SHAPE), chunks=CHUNKS, blocks=BLOCKS)

    def is_served(self, name: str) -> bool:
        """Whether the subscriber serves a file as it is, and says that this is confirmed."""
        answer = self.ask.get(f"{self.url}/data/foo/{name}")
        fresh = answer.headers.get("X-Caterva2-Freshness") == "fresh"
        return answer.status == 200 and fresh and answer.data == (self.root / name).read_bytes()

    def served(self, *names: str, timeout_s: float = 20.0) -> None:
        """Wait until files are served as they are."""
        wait_until(lambda: all(self.is_served(name) for name in names), timeout_s)

    def gone(self, *names: str) -> None:
        """Wait until datasets are not there any more."""
        wait_until(lambda: not set(names) & set(self.names()))
        for name in names:
            assert self.ask.get(f"{self.url}/data/foo/{name}").status == 404

    def newer(self, name: str, generation: int) -> dict:
        """Wait until the subscriber knows a later generation than one; return what it says of it."""
        wait_until(lambda: self.info(name)["generation"] > generation)
        return self.info(name)


@contextmanager
def published(directory: Path, root: Path) -> Iterator[Published]:
    root.mkdir(exist_ok=True)
    with running_cluster(Cluster(directory / "state", {"foo": root})) as running:
        made = Published(running, root)
        yield made
        made.ask.close()


@pytest.fixture(scope="module")
def site_of_all(tmp_path_factory) -> Iterator[Published]:
    directory = tmp_path_factory.mktemp("changes")
    with published(directory, directory / "root") as made:
        yield made


# -- one file ----------------------------------------------------------------------------------------


def replaced_by_rename(file: Path) -> None:
    write_array(file, noise(2, SHAPE), chunks=CHUNKS, blocks=BLOCKS)


def replaced_keeping_its_time(file: Path) -> None:
    status = file.stat()
    write_array(file, noise(2, SHAPE), chunks=CHUNKS, blocks=BLOCKS)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def rewritten_in_place(file: Path) -> None:
    other = write_array(file.with_name(".other"), noise(2, SHAPE), chunks=CHUNKS, blocks=BLOCKS)
    with file.open("r+b") as out:
        out.write(other.read_bytes())
        out.truncate()
    other.unlink()


def appended(file: Path) -> None:
    array = blosc2.open(str(file), mode="a")
    array.resize((SHAPE[0] + CHUNKS[0], *SHAPE[1:]))
    array[SHAPE[0] :] = noise(3, CHUNKS)


def one_chunk_updated(file: Path) -> None:
    blosc2.open(str(file), mode="a")[10:20] = noise(3, CHUNKS)


def vlmeta_only(file: Path) -> None:
    array = blosc2.open(str(file), mode="a")
    array.schunk.vlmeta["unit"] = "K"


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "change",
    [
        replaced_by_rename,
        replaced_keeping_its_time,
        rewritten_in_place,
        appended,
        one_chunk_updated,
        vlmeta_only,
        truncated,
    ],
)
def test_an_array_that_is(site_of_all: Published, change: Callable[[Path], None]) -> None:
    name = f"{change.__name__}.b2nd"
    file = site_of_all.write(name)
    wait_until(lambda: name in site_of_all.names())
    np.testing.assert_array_equal(site_of_all.ask.part(site_of_all.url, name, "5"), noise(1, SHAPE)[5])
    site_of_all.served(name)
    before = site_of_all.info(name)
    change(file)
    site_of_all.served(name)
    after = site_of_all.info(name)
    assert after["generation"] > before["generation"]
    assert after["etag"] != before["etag"]
    if change is truncated:
        assert (after["kind"], "cut" in after["error"]) == ("file", True)
        return
    whole = blosc2.open(str(file))
    assert after["shape"] == list(whole.shape)
    np.testing.assert_array_equal(site_of_all.ask.part(site_of_all.url, name), whole[:])
    assert after["attrs"] == (({"unit": "K"}) if change is vlmeta_only else {})


def test_a_small_file_that_is_touched_keeps_its_version(site_of_all: Published) -> None:
    file = site_of_all.root / "small.txt"
    file.write_text("the same")
    wait_until(lambda: "small.txt" in site_of_all.names())
    site_of_all.served("small.txt")
    before, stats = site_of_all.info("small.txt"), site_of_all.publisher.version_stats
    requests, touched = site_of_all.running.cluster.subscriber.origins.stats.requests, stats.touched
    os.utime(file)
    wait_until(lambda: stats.touched > touched)
    site_of_all.served("small.txt")
    after = site_of_all.info("small.txt")
    assert (after["generation"], after["etag"]) == (before["generation"], before["etag"])
    assert site_of_all.running.cluster.subscriber.origins.stats.requests == requests


def test_a_large_file_that_is_touched_is_not_hashed(site_of_all: Published) -> None:
    name, stats = "touched.b2nd", site_of_all.publisher.version_stats
    file = site_of_all.write(name)
    wait_until(lambda: name in site_of_all.names())
    site_of_all.served(name)
    before, source = site_of_all.info(name), site_of_all.publisher.source.stats
    hashed = (stats.bytes_hashed, source.bytes_hashed)
    upstream = site_of_all.running.cluster.subscriber.origins.stats
    moved = upstream.bytes
    os.utime(file)
    wait_until(lambda: site_of_all.publisher.catalogue.root("foo").entries[name].etag != before["etag"])
    assert (stats.bytes_hashed, source.bytes_hashed) == hashed
    site_of_all.served(name)
    assert site_of_all.info(name)["generation"] > before["generation"]
    assert upstream.bytes - moved < file.stat().st_size // 10  # a manifest


def test_a_file_that_is_moved_and_deleted(site_of_all: Published) -> None:
    file = site_of_all.write("here.b2nd")
    wait_until(lambda: "here.b2nd" in site_of_all.names())
    site_of_all.served("here.b2nd")
    file.rename(site_of_all.root / "there.b2nd")
    wait_until(lambda: "there.b2nd" in site_of_all.names())
    site_of_all.served("there.b2nd")
    site_of_all.gone("here.b2nd")
    (site_of_all.root / "there.b2nd").unlink()
    site_of_all.gone("there.b2nd")


def test_a_change_is_known_soon_after_it_has_settled(site_of_all: Published) -> None:
    file, catalogue = site_of_all.root / "soon.txt", site_of_all.running.cluster.subscriber.catalogue
    late_s, known, settle_s = [], threading.Event(), site_of_all.running.cluster.settle_s
    catalogue.listen(lambda event, _: known.set() if event.path == "foo/soon.txt" else None)
    for number in range(20):
        known.clear()
        file.write_text(f"{number}")
        assert known.wait(20)
        late_s.append(time.time() - file.stat().st_mtime - settle_s)
    late_s.sort()
    print(f"known {late_s[10] * 1e3:.0f} ms (p50), {late_s[-1] * 1e3:.0f} ms (max) after it had settled")
    assert late_s[10] < 0.5


# -- directories -------------------------------------------------------------------------------------


def test_a_directory_that_is_moved_in_renamed_and_moved_out(site_of_all: Published, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep" / "er").mkdir(parents=True)
    names = ["one.txt", "deep/two.txt", "deep/er/three.txt"]
    for name in names:
        (outside / name).write_text(name)
    shutil.move(outside, site_of_all.root / "moved")
    wait_until(lambda: {f"moved/{name}" for name in names} <= set(site_of_all.names()))
    site_of_all.served(*(f"moved/{name}" for name in names))
    (site_of_all.root / "moved").rename(site_of_all.root / "renamed")
    wait_until(lambda: {f"renamed/{name}" for name in names} <= set(site_of_all.names()))
    site_of_all.served(*(f"renamed/{name}" for name in names))
    site_of_all.gone(*(f"moved/{name}" for name in names))
    (site_of_all.root / "renamed" / "deep" / "two.txt").write_text("in a directory that was moved")
    site_of_all.served("renamed/deep/two.txt")
    shutil.move(site_of_all.root / "renamed", outside)
    site_of_all.gone(*(f"renamed/{name}" for name in names))


def test_ten_thousand_files_at_once(site_of_all: Published) -> None:
    directory = site_of_all.root / "many"
    for number in range(MANY):
        place = directory / f"{number % 100}"
        if number < 100:
            place.mkdir(parents=True)
        (place / f"{number}.txt").write_text(f"{number}")
    began = time.perf_counter()
    expected = {f"many/{number % 100}/{number}.txt" for number in range(MANY)}
    root = site_of_all.running.cluster.subscriber.catalogue.root("foo")
    wait_until(lambda: sum(name.startswith("many/") for name in list(root.entries)) == MANY, 50)
    print(f"{MANY} files known {time.perf_counter() - began:.2f} s after the last was written")
    assert {name for name in site_of_all.names() if name.startswith("many/")} == expected
    site_of_all.served(*sorted(expected)[:: MANY // 20])
    directory.rename(site_of_all.root.parent / "away")
    wait_until(lambda: not expected & root.entries.keys(), 50)


def mount(*arguments: str | Path) -> bool:
    return subprocess.run(arguments, capture_output=True, check=False).returncode == 0


@contextmanager
def mounted(image: Path, root: Path) -> Iterator[None]:
    """Have a file system of its own at a directory, and its files in another as well."""
    image.mkdir()
    root.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() or not mount("mount", "-t", "tmpfs", "none", image):
        pytest.skip("mounting is not permitted here")
    try:
        assert mount("mount", "--bind", image, root)
        yield
    finally:
        mount("umount", "--lazy", root)
        mount("umount", "--lazy", image)


def goes_away(site: Published, take_away: Callable[[], object], bring_back: Callable[[], object]) -> None:
    """Take the directory of a root away and bring it back: nothing is deleted, what is cached is served."""
    site.write("warm.b2nd")
    site.write("cold.b2nd")
    wait_until(lambda: {"warm.b2nd", "cold.b2nd"} <= set(site.names()))
    site.served("warm.b2nd")
    content, before = (site.root / "warm.b2nd").read_bytes(), site.info("warm.b2nd")
    take_away()
    wait_until(lambda: site.state() == "offline")
    assert set(site.names()) == {"warm.b2nd", "cold.b2nd"}
    assert site.ask.stored(site.url, "warm.b2nd") == content
    assert site.info("warm.b2nd")["freshness"] == "unverified"
    assert site.ask.get(f"{site.url}/data/foo/cold.b2nd").status == 503
    bring_back()
    wait_until(lambda: site.state() == "online")
    site.served("warm.b2nd", "cold.b2nd")
    assert site.info("warm.b2nd")["etag"] == before["etag"]
    site.write("cold.b2nd", 2)  # it is watched again
    site.served("cold.b2nd")


def test_a_root_that_is_unmounted(tmp_path: Path) -> None:
    image, root = tmp_path / "image", tmp_path / "root"
    with mounted(image, root), published(tmp_path, root) as site:
        goes_away(
            site,
            lambda: mount("umount", "--lazy", root),
            lambda: mount("mount", "--bind", image, root),
        )


def test_a_root_whose_directory_is_renamed(tmp_path: Path) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    with published(tmp_path, root) as site:
        goes_away(site, lambda: root.rename(away), lambda: away.rename(root))
        site.write("other.b2nd").rename(tmp_path / "other.b2nd")
        shutil.rmtree(root)  # file by file: they are deleted
        root.mkdir()
        (tmp_path / "other.b2nd").rename(root / "other.b2nd")
        wait_until(lambda: site.names() == ["other.b2nd"])
        site.served("other.b2nd")


# -- writers that do not stop ------------------------------------------------------------------------


class Writer(threading.Thread):
    """Appends to a log and to an array until it is stopped, and knows all that they ever were."""

    def __init__(self, root: Path) -> None:
        super().__init__(name="writer", daemon=True)
        self._log, self._array = root / "growing.log", root / "growing.b2nd"
        self._stopped = threading.Event()
        self.contents: dict[str, set[bytes]] = {"growing.log": set(), "growing.b2nd": set()}
        blosc2.zeros((1, 1000), dtype=np.int32, chunks=(1, 1000), urlpath=str(self._array), mode="w")

    def run(self) -> None:
        length = 1
        while not self._stopped.wait(0.15):
            with self._log.open("a") as log:
                log.write(f"line {length}\n")
            length += 1
            array = blosc2.open(str(self._array), mode="a")
            array.resize((length, 1000))
            array[-1:] = noise(length, (1, 1000))
            for file in (self._log, self._array):
                self.contents[file.name].add(file.read_bytes())

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@pytest.mark.timeout(WRITTEN_S + 120)
def test_files_that_are_written_for_long(site, ask: Asker, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    site.environment |= {"CATERVA2_PUBLISHER_SETTLE_S": "30", "CATERVA2_PUBLISHER_MAX_SETTLE_S": "1"}
    writer = Writer(root)
    url = site.start_three(root)[2].url("subscriber")
    writer.start()
    read: dict[str, list[bytes]] = {name: [] for name in writer.contents}
    generations: dict[str, set[int]] = {name: set() for name in writer.contents}

    def read_all() -> bool:
        for name, seen in generations.items():
            info = ask.get(f"{url}/api/info/foo/{name}")
            if info.status == 200:
                assert info.json()["kind"] == ("array" if name.endswith(".b2nd") else "file")
                assert not info.json().get("error")
                seen.add(info.json()["generation"])
            answer = ask.get(f"{url}/data/foo/{name}", {"If-Match": info.headers.get("ETag", '""')})
            assert answer.status in (200, 404, 412, 503)
            if answer.status == 200:
                read[name].append(answer.data)
        return all(len(seen) >= 3 for seen in generations.values())

    until = time.monotonic() + WRITTEN_S
    wait_until(lambda: read_all() and time.monotonic() > until, WRITTEN_S + 50)
    writer.stop()
    for name, contents in writer.contents.items():
        assert set(read[name]) <= contents
        print(
            f"{name}: {len(generations[name])} versions, {len(read[name])} reads of {len(contents)} contents"
        )

    def is_served() -> bool:
        answers = {name: ask.get(f"{url}/data/foo/{name}") for name in writer.contents}
        return all(
            answer.status == 200 and answer.data == (root / name).read_bytes()
            for name, answer in answers.items()
        )

    wait_until(is_served)


# -- no events ---------------------------------------------------------------------------------------

NO_EVENTS = """
import ctypes, os
if os.environ.get("NO_EVENTS"):
    me = os.getuid()
    if ctypes.CDLL(None).unshare(0x10000000) == 0:  # a namespace of users, that has limits of its own
        open("/proc/self/uid_map", "w").write(f"{me} {me} 1")
        open("/proc/sys/user/max_inotify_instances", "w").write("0")
"""


def test_a_file_system_that_tells_nothing(site, ask: Asker, tmp_path: Path) -> None:
    """The system refuses to watch, since too much is watched already."""
    root, custom = tmp_path / "root", tmp_path / "custom"
    (root / "d").mkdir(parents=True)
    custom.mkdir()
    (custom / "sitecustomize.py").write_text(NO_EVENTS)
    site.environment["PYTHONPATH"] = os.pathsep.join([str(custom), os.environ.get("PYTHONPATH", "")])
    site.environment["NO_EVENTS"] = "1"
    probe = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/sys/user/max_inotify_instances').read())"],
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.stdout.strip() != "0":
        pytest.skip("namespaces of users are not permitted here")
    (root / "d" / "x.txt").write_text("one")
    _, publisher, subscriber = site.start_three(root)
    publisher.wait_for_line("no file events")
    url = subscriber.url("subscriber")

    def served(name: str) -> bool:
        answer = ask.get(f"{url}/data/foo/{name}")
        return answer.status == 200 and answer.data == (root / name).read_bytes()

    wait_until(lambda: served("d/x.txt"))
    (root / "d" / "x.txt").write_text("two, and longer")
    (root / "d" / "e").mkdir()
    (root / "d" / "e" / "y.txt").write_text("in a new directory")
    wait_until(lambda: served("d/x.txt") and served("d/e/y.txt"))
    (root / "d" / "e").rename(tmp_path / "away")
    wait_until(lambda: ask.json(f"{url}/api/list/foo") == ["d/x.txt"])
