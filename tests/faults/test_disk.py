"""The disk of the cache is full, gone or cannot be written: reads go on, and are right.

As root, on small file systems of their own; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caterva2.testing.waiting import wait_until

IS_ROOT = sys.platform == "linux" and os.geteuid() == 0

TO_THE_LAST_BYTE = {"CATERVA2_SUBSCRIBER_MIN_FREE_BYTES": "0"}
"""So that it is the disk that refuses, not the reserve that is kept of it."""


@pytest.fixture
def cache(site) -> Path:
    directory = site.directory / "subscriber" / "cache"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def mount(cache):
    """Mount something at the cache's directory for as long as the test lasts."""
    mounted = []

    def mount(*arguments: str) -> None:
        if not IS_ROOT:
            pytest.skip("mounts a file system, as root on Linux")
        done = subprocess.run(["mount", *arguments, str(cache)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        mounted.append(cache)

    yield mount
    for directory in mounted:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def health(ask):
    return lambda url: ask.json(f"{url}/health")["status"]


@pytest.fixture
def read_until_degraded(health, read_all_right):
    """Read everything, which is right each time, until the subscriber says that it is degraded.

    A full disk may still take a small extent, where a block is used in part: then it says so a bit later.
    """

    def read_until_degraded(url: str) -> None:
        def degraded() -> bool:
            read_all_right(url)
            return health(url) == "degraded"

        wait_until(degraded)

    return read_until_degraded


def test_a_disk_with_less_free_than_must_stay_free_is_left_alone(
    mount, start, ask, health, read_all_right, cache
) -> None:
    mount("-t", "tmpfs", "-o", "size=20m", "tmpfs")
    _, subscriber = start()
    url = subscriber.url("subscriber")
    read_all_right(url)
    assert health(url) == "degraded"
    assert ask.metric(url, "caterva2_subscriber_cache_cached_bytes") == 0
    assert shutil.disk_usage(cache).free > 19_000_000


def test_a_full_disk_only_keeps_less(
    site, mount, start, ask, health, read_all_right, read_until_degraded, cache
) -> None:
    site.environment |= TO_THE_LAST_BYTE
    mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
    _, subscriber = start()
    url = subscriber.url("subscriber")
    assert health(url) == "ok"
    read_until_degraded(url)
    assert shutil.disk_usage(cache).free < 100_000
    assert ask.metric(url, "caterva2_subscriber_cache_disk_errors") > 0
    assert ask.metric(url, "caterva2_subscriber_cache_passed_through") > 0
    read_all_right(url)
    assert ask.metric(url, "caterva2_subscriber_cache_hits") > 0
    assert ask.metric(url, "caterva2_subscriber_cache_rejected") == 0
    assert subscriber.stop() == 0


def test_a_full_disk_that_gets_room_is_used_again(
    site, mount, start, ask, health, read_all_right, read_until_degraded, cache
) -> None:
    site.environment |= TO_THE_LAST_BYTE
    mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
    _, subscriber = start()
    url = subscriber.url("subscriber")
    read_until_degraded(url)
    subprocess.run(["mount", "-o", "remount,size=20m", str(cache)], check=True)
    read_all_right(url)
    wait_until(lambda: health(url) == "ok")
    missed = ask.metric(url, "caterva2_subscriber_cache_misses")
    read_all_right(url)
    assert ask.metric(url, "caterva2_subscriber_cache_misses") == missed


def test_a_subscriber_killed_on_a_full_disk_starts_again(site, mount, start, restart, read_all_right) -> None:
    site.environment |= TO_THE_LAST_BYTE
    mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
    _, subscriber = start()
    read_all_right(subscriber.url("subscriber"))
    subscriber.kill()
    read_all_right(restart().url("subscriber"))


def test_a_cache_deleted_under_a_running_subscriber(start, restart, health, read_all_right, cache) -> None:
    _, subscriber = start()
    url = subscriber.url("subscriber")
    read_all_right(url)
    shutil.rmtree(cache)
    read_all_right(url)
    subscriber.kill()
    again = restart().url("subscriber")
    read_all_right(again)
    assert health(again) == "ok"


def test_a_cold_cache_deleted_under_a_running_subscriber(start, health, read_all_right, cache) -> None:
    _, subscriber = start()
    url = subscriber.url("subscriber")
    shutil.rmtree(cache)
    read_all_right(url)
    assert health(url) == "degraded"


def test_a_file_system_that_turns_read_only_under_a_running_subscriber(
    tmp_path, mount, start, arrays, ask, read_all_right, read_until_degraded, cache
) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mount("-o", "loop,errors=remount-ro", str(image))
    _, subscriber = start()
    url = subscriber.url("subscriber")
    ask.part(url, next(iter(arrays)))

    turn_read_only(cache)
    read_all_right(url)
    read_until_degraded(url)
    subscriber.stop()


def turn_read_only(directory: Path) -> None:
    """Let the kernel find an error in a file system of our own: it turns read-only, open files and all."""
    device = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE", "--mountpoint", str(directory)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
    if not device.startswith("/dev/loop") or not trigger.exists():
        pytest.skip("this kernel cannot be told of an error in a file system")
    trigger.write_text("1")
    with pytest.raises(OSError, match="Read-only"):
        (directory / "written").write_text("")


def test_started_with_a_cache_that_cannot_be_written(
    site, mount, start, health, read_all_right, cache
) -> None:
    site.environment |= TO_THE_LAST_BYTE
    mount("-t", "tmpfs", "-o", "size=20m,ro", "tmpfs")
    _, subscriber = start()
    url = subscriber.url("subscriber")
    assert health(url) == "degraded"
    read_all_right(url)
    assert health(url) == "degraded"
    assert said_of(cache, subscriber) == 1
    subprocess.run(["mount", "-o", "remount,rw", str(cache)], check=True)
    wait_until(lambda: read_all_right(url) or health(url) == "ok", timeout_s=40)
    assert list((cache / "mirrors").iterdir())
    assert subscriber.stop() == 0


@pytest.mark.parametrize("used_before", [False, True])
def test_started_with_a_cache_on_a_full_disk(
    site, mount, start, restart, ask, health, read_all_right, cache, used_before
) -> None:
    site.environment |= TO_THE_LAST_BYTE
    mount("-t", "tmpfs", "-o", "size=20m", "tmpfs")
    if used_before:
        _, subscriber = start()
        read_all_right(subscriber.url("subscriber"))
        assert subscriber.stop() == 0
        fill_up(cache)
        subscriber = restart()
    else:
        fill_up(cache)
        _, subscriber = start()
    url = subscriber.url("subscriber")
    assert health(url) == "degraded"
    read_all_right(url)
    assert said_of(cache, subscriber) == 1

    (cache / "ballast").unlink()
    wait_until(lambda: read_all_right(url) or health(url) == "ok", timeout_s=40)
    read_all_right(url)
    missed = ask.metric(url, "caterva2_subscriber_cache_misses")
    read_all_right(url)
    assert ask.metric(url, "caterva2_subscriber_cache_misses") == missed
    assert not list(cache.glob("*.damaged"))
    assert subscriber.stop() == 0


def fill_up(directory: Path) -> None:
    """Leave not a byte free."""
    with pytest.raises(OSError, match="No space left"), (directory / "ballast").open("wb", 0) as ballast:
        while True:
            ballast.write(bytes(4096))


def said_of(cache: Path, subscriber) -> int:
    """Return how many lines say that the cache cannot be used."""
    subscriber.wait_for_line("cannot be used, data is passed through")
    return sum(str(cache) in line and "cannot be used" in line for line in subscriber.lines)
