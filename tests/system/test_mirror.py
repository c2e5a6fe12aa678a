"""A complete mirror, and what can be made of it: a publisher of the same versions, without the origin."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from tests.conftest import Process, Site

from caterva2.frame.write import write_array, write_frame
from caterva2.testing.waiting import wait_until

HTTP = urllib3.PoolManager()
DATASETS = 7


def write_root(root: Path) -> Path:
    """Write a file of each kind."""
    (root / "dir1/dir2").mkdir(parents=True)
    rng = np.random.default_rng(1)
    write_array(root / "cube.b2nd", rng.random((40, 50, 60)), chunks=(10, 25, 30), blocks=(5, 5, 10))
    write_array(root / "dir1/zeros.b2nd", np.zeros((100, 100)))
    write_array(root / "dir1/dir2/odd [1] é.b2nd", np.arange(1000, dtype="i2"))
    write_frame(root / "f.b2frame", b"0123456789" * 10_000)
    (root / "large.bin").write_bytes(rng.bytes(3_000_000))
    (root / "empty").write_bytes(b"")
    (root / "broken.b2nd").write_bytes(b"this is no frame")
    return root


def anywhere(site: Site, state: str) -> list[str]:
    return ["--listen", "127.0.0.1:0", "--state", str(site.directory / state)]


def start_broker(site: Site, state: str) -> Process:
    broker = site.start("broker", *anywhere(site, state))
    site.environment["CATERVA2_BROKER"] = broker.url("broker")
    return broker


def start_subscriber(site: Site, state: str, *arguments: str) -> Process:
    subscriber = site.start("subscriber", *anywhere(site, state), *arguments)
    site.environment["CATERVA2_SUBSCRIBER"] = subscriber.url("subscriber")
    return subscriber


def get(url: str) -> Any:
    return json.loads(HTTP.request("GET", url).data)


def rows_of(url: str) -> dict[str, dict[str, Any]]:
    """Return what a service says of the datasets of foo."""
    return {row["path"]: row for row in get(f"{url}/api/catalogue/foo")["rows"]}


def hashes_of(url: str) -> dict[str, str]:
    """Download everything; return the SHA-256 of each."""
    return {
        path: hashlib.sha256(HTTP.request("GET", f"{url}/api/download/{path}").data).hexdigest()
        for path in rows_of(url)
    }


def metric(url: str, name: str) -> float:
    for line in HTTP.request("GET", f"{url}/metrics").data.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(name)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a publisher had, and the state of a subscriber that mirrored it from before it was there."""
    site = Site(tmp_path_factory.mktemp("origin"))
    root = write_root(site.directory / "root")
    start_broker(site, "broker")
    mirror = start_subscriber(site, "mirror", "--follow", "foo/**", "--full")
    publisher = site.start("publisher", "foo", str(root), *anywhere(site, "publisher"))
    url = publisher.url("publisher")
    wait_until(lambda: [row["datasets"] for row in site.json("roots")] == [DATASETS])
    mirror.wait_for_line("all that is followed in full is here")
    wait_until(lambda: len(site.json("info")) == DATASETS and all(r["complete"] for r in site.json("info")))
    # all of this is live: what changes, comes and goes
    write_array(site.directory / "new", np.arange(8), attrs={"version": 2})
    (site.directory / "new").rename(root / "dir1/zeros.b2nd")
    (root / "gone.bin").write_bytes(b"to be deleted")
    followed = f"{mirror.url('subscriber')}/api/followed"
    wait_until(lambda: "foo/gone.bin" in [row["path"] for row in get(followed)["datasets"]])
    (root / "gone.bin").unlink()
    wait_until(lambda: {r["path"]: r["etag"] for r in get(followed)["datasets"]} == _etags(url))
    wait_until(lambda: all(row["complete"] for row in get(followed)["datasets"]))
    assert get(f"{mirror.url('subscriber')}/health")["behind"] == 0
    # a second one has a part of it, below a publisher that is there
    start_subscriber(site, "partial")
    site.run("show", "foo/cube.b2nd[0, 0]")
    site.run("download", "foo/large.bin", str(site.directory))
    origin = {
        "rows": rows_of(url),
        "hashes": hashes_of(url),
        "mirror": site.directory / "mirror",
        "partial": site.directory / "partial",
    }
    for process in reversed(site.processes):
        assert process.stop() == 0
    yield origin
    site.close()


def _etags(url: str) -> dict[str, str]:
    return {path: row["etag"] for path, row in rows_of(url).items()}


@pytest.fixture
def mirror(origin: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the mirror, made while nobody ran on it."""
    return Path(shutil.copytree(origin["mirror"], tmp_path / "a mirror"))


def publish(site: Site, directory: Path) -> tuple[Process, str]:
    """Publish foo out of a cache, at a broker of its own; wait until all is checked."""
    if "CATERVA2_BROKER" not in site.environment:
        start_broker(site, "broker")
    publisher = site.start("publisher", "foo", str(directory), *anywhere(site, "publisher"))
    publisher.wait_for_line("mirror checked")
    return publisher, publisher.url("publisher")


def _snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.stat()
        found[str(path)] = status.st_mtime_ns, status.st_ctime_ns, status.st_size
    return found


def test_a_mirror_is_published_as_it_is(site, origin, mirror) -> None:
    before = _snapshot(mirror)
    publisher, url = publish(site, mirror)
    assert rows_of(url) == origin["rows"]
    assert hashes_of(url) == origin["hashes"]
    assert get(f"{url}/health")["mirrors"]["foo"] == {
        "unchecked": 0,
        "published": DATASETS,
        "unfinished": 0,
        "wrong": 0,
    }
    start_subscriber(site, "new")
    wait_until(lambda: [row["datasets"] for row in site.json("roots")] == [DATASETS])
    shown = site.json("show", "foo/cube.b2nd[3, 4, 5:7]")
    assert shown == np.random.default_rng(1).random((40, 50, 60))[3, 4, 5:7].tolist()
    late = site.start("subscriber", "--listen", "127.0.0.1:0", "--state", str(mirror))
    late.wait_for_line("a mirror is in use by")
    assert publisher.stop() == 0
    assert _snapshot(mirror) == before


def test_who_has_it_fetches_nothing_again(site, origin, mirror) -> None:
    _, url = publish(site, mirror)
    shutil.copytree(mirror, site.directory / "reader")
    reader = start_subscriber(site, "reader").url("subscriber")
    wait_until(lambda: [row["state"] for row in site.json("roots")] == ["online"])
    wait_until(lambda: {row["freshness"] for row in site.json("info")} == {"fresh"})
    assert hashes_of(reader) == origin["hashes"]
    assert metric(reader, "caterva2_subscriber_upstream_requests_total") == 0
    assert 'route="/data/"' not in HTTP.request("GET", f"{url}/metrics").data.decode()


def test_what_is_not_all_there_is_not_published(site, origin) -> None:
    partial = Path(shutil.copytree(origin["partial"], site.directory / "partial"))
    publisher, url = publish(site, partial)
    assert list(rows_of(url)) == ["foo/large.bin"]
    assert get(f"{url}/health")["mirrors"]["foo"]["unfinished"] == 1
    publisher.wait_for_line("cube.b2nd.*not all of it is here")


def test_a_flipped_bit_keeps_a_dataset_from_being_published(site, origin, mirror) -> None:
    large = max((mirror / "cache/mirrors").glob("*.data"), key=lambda file: file.stat().st_size)
    data = bytearray(large.read_bytes())
    data[1_234_567] ^= 1
    large.write_bytes(data)
    publisher, url = publish(site, mirror)
    publisher.wait_for_line(r"foo/large.bin.*do not match their digest.*not what it was")
    assert rows_of(url).keys() == origin["rows"].keys() - {"foo/large.bin"}
    assert get(f"{url}/health")["mirrors"]["foo"]["wrong"] == 1


def test_a_file_that_changes_is_checked_again(site, origin, mirror) -> None:
    publisher, url = publish(site, mirror)
    assert publisher.stop() == 0
    publisher, url = publish(site, mirror)  # what was checked, and is as it was, is taken
    large = max((mirror / "cache/mirrors").glob("*.data"), key=lambda file: file.stat().st_size)
    os.utime(large)  # the same bytes
    wait_until(lambda: hashes_of(url) == origin["hashes"])
    with large.open("r+b") as file:
        file.write(b"x")
    assert HTTP.request("GET", f"{url}/data/foo/large.bin").status in (404, 412)
    publisher.wait_for_line(r"foo/large.bin.*not what it was")
    wait_until(lambda: "foo/large.bin" not in rows_of(url))


def test_a_subscriber_that_was_killed_leaves_a_mirror_too(site, origin) -> None:
    shutil.copytree(origin["mirror"], site.directory / "reader")
    start_broker(site, "broker")
    reader = start_subscriber(site, "reader")
    refused = site.start("publisher", "foo", str(site.directory / "reader"), *anywhere(site, "publisher"))
    refused.wait_for_line(r"reader is in use by process \d+: stop it")
    assert refused.popen.wait(20) != 0
    site.run("show", "foo/cube.b2nd[0, 0, 0]")
    reader.kill()
    _, url = publish(site, site.directory / "reader")
    assert hashes_of(url) == origin["hashes"]


def test_who_has_seen_later_versions_takes_those_of_the_mirror_after_a_reset(site, origin, mirror) -> None:
    start_broker(site, "broker")
    reader = start_subscriber(site, "reader").url("subscriber")
    root = site.directory / "root"
    root.mkdir()
    write_array(root / "cube.b2nd", np.arange(5))
    later = site.start("publisher", "foo", str(root), *anywhere(site, "later"))
    wait_until(lambda: [row["datasets"] for row in site.json("roots")] == [1])
    assert later.stop() == 0
    publisher, _ = publish(site, mirror)
    publisher.wait_for_line("root claimed")  # 6 s after the other was last heard of
    wait_until(lambda: len(rows_of(reader)) == DATASETS)
    wait_until(lambda: get(f"{reader}/api/roots")["foo"]["behind"] == 1)
    cube = "foo/cube.b2nd"
    assert rows_of(reader)[cube]["generation"] > origin["rows"][cube]["generation"]
    assert publisher.stop() == 0
    start = ["publisher", "foo", str(mirror), "--reset", *anywhere(site, "publisher")]
    site.start(*start).wait_for_line("root reset")
    wait_until(lambda: rows_of(reader) == origin["rows"])
    wait_until(lambda: hashes_of(reader) == origin["hashes"])


def test_another_root_is_refused_by_name(site, mirror) -> None:
    start_broker(site, "broker")
    done = site.run("publisher", "bar", str(mirror), *anywhere(site, "publisher"), code=2)
    assert "bar" in done.stderr and "foo" in done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_mirror_that_cannot_be_written(site, origin, mirror) -> None:
    for options in (["--bind"], ["-o", "remount,ro,bind"]):
        done = subprocess.run(["mount", *options, str(mirror), str(mirror)], capture_output=True, check=False)
        if done.returncode:
            subprocess.run(["umount", str(mirror)], capture_output=True, check=False)
            pytest.skip("mounting is not permitted here")
    try:
        publisher, url = publish(site, mirror / "cache")
        assert hashes_of(url) == origin["hashes"]
        assert publisher.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", str(mirror)], check=True)
