"""The catalogue equals the directory, whatever happens there."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import time

import numpy as np
import pytest
import structlog

from caterva2.frame.write import write_array
from caterva2.publisher import directory as directory_module
from caterva2.publisher import events as events_module
from caterva2.publisher import watch as watch_module
from caterva2.publisher.store import PublisherStore
from caterva2.publisher.versions import quiet_in_s
from caterva2.source.files import stat_key


async def test_what_is_there_is_announced_with_its_errors(root, watch) -> None:
    write_array(root / "good.b2nd", np.arange(10))
    (root / "bad.b2nd").write_bytes(b"not a frame")
    (root / "text with ü.txt").write_text("hello")
    async with watch() as watched:
        await watched.have("good.b2nd", "bad.b2nd", "text with ü.txt")
        assert watched.entries["bad.b2nd"].error
        assert watched.entries["good.b2nd"].error is None
        assert watched.catalogue.root("foo").state == "online"
        assert watched.catalogue.root("foo").fresh


async def test_a_large_root_is_scanned_when_each_file_was_tried(root, watch, wait_until, monkeypatch) -> None:
    monkeypatch.setattr(watch_module, "BATCH_FILES", 2)
    for n in range(300):
        (root / f"{n}").write_text("quiet")
    await wait_until(lambda: quiet_in_s(stat_key((root / "299").stat()), settle_s=0.1) < 0)
    async with watch(max_settle_s=0.01) as watched:
        await wait_until(lambda: watched.watcher.scanned)
        assert len(watched.entries) == 300


async def test_each_change_is_seen_by_its_event(root, watch, wait_until) -> None:
    async with watch() as watched:
        await watched.have()
        (root / "x").write_text("one")
        await watched.have("x")
        first = watched.entries["x"]
        (root / "x").write_text("two")
        await watched.newer("x", first.generation)
        second = watched.entries["x"]
        assert second.etag != first.etag
        with (root / "x").open("a") as file:
            file.write(" and more")
        await watched.newer("x", second.generation)
        third = watched.entries["x"]
        assert third.size == len("two and more")
        (root / ".new").write_text("replaced")
        (root / ".new").replace(root / "x")
        await watched.newer("x", third.generation)
        (root / "x").rename(root / "y")
        await watched.have("y")
        (root / "y").unlink()
        await watched.have()


async def test_a_dataset_that_comes_back_is_newer(root, watch) -> None:
    async with watch() as watched:
        (root / "x").write_text("one")
        await watched.have("x")
        first = watched.entries["x"]
        (root / "x").unlink()
        await watched.have()
        (root / "x").write_text("one")
        await watched.have("x")
        assert watched.entries["x"].generation > first.generation
        assert watched.entries["x"].etag != first.etag


async def test_touch_changes_nothing(root, watch, wait_until) -> None:
    (root / "x").write_text("one")
    async with watch() as watched:
        await watched.have("x")
        entry, events = watched.entries["x"], watched.catalogue.last_event_id
        os.utime(root / "x")
        await wait_until(lambda: watched.versions.touched == 1)
        await wait_until(lambda: watched.watcher.records["x"].key.mtime_ns == (root / "x").stat().st_mtime_ns)
        assert watched.entries["x"] is entry
        assert watched.catalogue.last_event_id == events


async def test_directories_made_moved_and_removed(root, watch, tmp_path) -> None:
    async with watch() as watched:
        await watched.have()
        (root / "a" / "b" / "c").mkdir(parents=True)
        (root / "a" / "b" / "c" / "deep").write_text("1")
        await watched.have("a/b/c/deep")
        (root / "a" / "b" / "late").write_text("2")  # in a directory that came while watching
        await watched.have("a/b/c/deep", "a/b/late")
        shutil.move(root / "a", tmp_path / "away")
        await watched.have()
        (tmp_path / "away" / "b" / "outside").write_text("3")
        shutil.move(tmp_path / "away", root / "back")
        await watched.have("back/b/c/deep", "back/b/late", "back/b/outside")
        (root / "back" / "b" / "again").write_text("4")
        await watched.have("back/b/c/deep", "back/b/late", "back/b/outside", "back/b/again")
        (root / "back").rename(root / "a")  # a name that was watched before
        await watched.have("a/b/c/deep", "a/b/late", "a/b/outside", "a/b/again")
        (root / "a" / "b" / "c" / "last").write_text("5")
        await watched.have("a/b/c/deep", "a/b/late", "a/b/outside", "a/b/again", "a/b/c/last")
        shutil.rmtree(root / "a")
        await watched.have()


async def test_changes_are_seen_under_the_names_of_links_too(root, watch) -> None:
    (root / "data").mkdir()
    (root / "data" / "x").write_text("one")
    (root / "link").symlink_to("data")
    async with watch() as watched:
        await watched.have("data/x", "link/x")
        generation = watched.entries["link/x"].generation
        (root / "data" / "x").write_text("two")
        await watched.newer("link/x", generation)
        (root / "data" / "x").unlink()
        await watched.have()


async def test_a_restart_opens_no_file_and_keeps_all_versions(root, watch, store) -> None:
    for n in range(50):
        (root / f"x{n}").write_text(f"{n}")
    write_array(root / "a.b2nd", np.arange(10))
    async with watch() as watched:
        await watched.have("a.b2nd", *(f"x{n}" for n in range(50)))
        before = dict(watched.entries)
        assert watched.versions.files_opened == 51
    async with watch() as watched:
        assert watched.entries == before  # at once, before the first scan
        await watched.have(*before)
        assert watched.entries == before
        assert watched.versions.files_opened == 0


async def test_what_happened_while_down_is_seen(root, watch) -> None:
    for name in ("kept", "changed", "deleted"):
        (root / name).write_text(name)
    async with watch() as watched:
        await watched.have("kept", "changed", "deleted")
        before = dict(watched.entries)
    (root / "changed").write_text("other")
    (root / "deleted").unlink()
    (root / "new").write_text("new")
    async with watch() as watched:
        await watched.have("kept", "changed", "new")
        await watched.newer("changed", before["changed"].generation)
        assert watched.entries["kept"] == before["kept"]


async def test_without_events_all_is_looked_at_again(root, watch, monkeypatch) -> None:
    def refuse(*_):
        raise OSError("no space left for watches")

    monkeypatch.setattr(events_module, "RustNotify", refuse)
    with structlog.testing.capture_logs() as logs:
        async with watch() as watched:
            await watched.have()
            (root / "x").write_text("one")
            await watched.have("x")
            (root / "x").unlink()
            await watched.have()
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["no file events"]


async def test_a_file_written_all_the_time_is_announced_in_the_end(root, watch) -> None:
    stop = asyncio.Event()

    async def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            (root / "x").write_text(str(n))
            await asyncio.sleep(0.15)

    async with watch(settle_s=1.0, max_settle_s=1.5) as watched:
        began = time.monotonic()
        writer = asyncio.create_task(write())
        await watched.have("x")
        assert time.monotonic() - began > 1.4
        stop.set()
        await writer


async def test_a_root_that_disappears_is_offline_and_keeps_its_datasets(root, watch, wait_until) -> None:
    (root / "d").mkdir()
    (root / "d" / "x").write_text("one")
    async with watch() as watched:
        await watched.have("d/x")
        before = dict(watched.entries)
        root.rename(root.with_name("away"))
        await wait_until(lambda: watched.catalogue.root("foo").state == "offline")
        assert watched.watcher.offline.is_set()
        assert not watched.catalogue.root("foo").fresh
        assert watched.entries == before
        root.with_name("away").rename(root)
        await wait_until(lambda: watched.catalogue.root("foo").state == "online")
        assert watched.entries == before
        (root / "d" / "y").write_text("two")  # it is watched again
        await watched.have("d/x", "d/y")
        assert watched.versions.taken == 2


async def test_an_empty_mount_point_is_a_root_that_disappeared(root, watch, store, wait_until) -> None:
    """A root that is empty now, and was on another device when it had files."""
    (root / "x").write_text("one")
    async with watch() as watched:
        await watched.have("x")
        before = dict(watched.entries)
    device = store.device("foo", str(root))
    assert device == root.stat().st_dev
    store.set_device("foo", str(root), device + 1)
    (root / "x").rename(root.with_name("x"))
    async with watch() as watched:
        await wait_until(watched.watcher.offline.is_set)
        assert watched.entries == before
        root.with_name("x").rename(root / "x")
        await wait_until(watched.watcher.online.is_set)
        assert watched.entries["x"].etag == before["x"].etag


async def test_the_device_is_known_from_the_first_file_on(root, watch, store) -> None:
    """Not only from the next look at all: what is unmounted before that would be taken for emptied."""
    async with watch() as watched:
        await watched.have()
        assert store.device("foo", str(root)) is None
        (root / "x").write_text("one")
        await watched.have("x")
        assert store.device("foo", str(root)) == root.stat().st_dev


def mount(*arguments) -> bool:
    return subprocess.run(arguments, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts")
async def test_a_root_that_is_unmounted_is_offline_until_it_is_mounted(
    root, watch, wait_until, tmp_path
) -> None:
    image = tmp_path / "image"
    image.mkdir()
    if not mount("mount", "-t", "tmpfs", "none", image):
        pytest.skip("mounting is not permitted here")
    try:
        (image / "x").write_text("one")
        assert mount("mount", "--bind", image, root)
        async with watch() as watched:
            await watched.have("x")
            before = dict(watched.entries)
            assert mount("umount", "--lazy", root)
            await wait_until(lambda: watched.catalogue.root("foo").state == "offline")
            assert watched.entries == before
            assert mount("mount", "--bind", image, root)
            await wait_until(lambda: watched.catalogue.root("foo").state == "online")
            assert watched.entries == before
            (root / "y").write_text("two")
            await watched.have("x", "y")
    finally:
        mount("umount", "--lazy", root)
        mount("umount", "--lazy", image)


async def test_an_emptied_directory_is_empty(root, watch) -> None:
    (root / "x").write_text("one")
    async with watch() as watched:
        await watched.have("x")
        (root / "x").unlink()
        await watched.have()
        assert watched.catalogue.root("foo").state == "online"


async def test_one_file_that_surprises_us_does_not_stop_the_others(
    root, watch, monkeypatch, wait_until
) -> None:
    take = directory_module.Versions.take

    def surprised(self, name, *args, **options):
        if name == "bad":
            raise ZeroDivisionError
        if name == "secret":
            raise PermissionError(13, "Permission denied")
        return take(self, name, *args, **options)

    monkeypatch.setattr(directory_module.Versions, "take", surprised)
    for name in ("bad", "good", "secret"):
        (root / name).write_text(name)
    with structlog.testing.capture_logs() as logs:
        async with watch(rescan_s=0.1) as watched:
            await watched.have("good")
            scans = watched.watcher.stats.scans
            await wait_until(lambda: watched.watcher.stats.scans > scans + 3)
            assert set(watched.entries) == {"good"}
    refused = [log["name"] for log in logs if log["event"] == "not published"]
    assert sorted(refused) == ["bad", "secret"]  # each said once


async def test_a_later_generation_elsewhere_is_passed(root, watch) -> None:
    (root / "x").write_text("one")
    async with watch() as watched:
        await watched.have("x")
        before = watched.entries["x"]
        watched.watcher.raise_generation("x", before.generation + 1_000_000)
        await watched.newer("x", before.generation + 1_000_000)
        assert watched.entries["x"].etag != before.etag


async def test_a_state_that_cannot_be_written_is_tried_again(root, watch, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("caterva2.publisher.watch.FAILED_PAUSE_S", 0.05)
    store = PublisherStore(tmp_path / "other.sqlite")
    save, failures = store.save, [sqlite3.OperationalError("database or disk is full")] * 3

    def failing(*args):
        if failures:
            raise failures.pop()
        save(*args)

    store.save = failing
    (root / "x").write_text("one")
    async with watch(store=store) as watched:
        await watched.have("x")
        assert not failures
    store.close()


def listing(root):
    """Everything that could be written: content, times, modes. Times of access are the system's own."""
    rows = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        rows[path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, content)
    return rows


async def test_nothing_is_written_below_a_root(root, watch) -> None:
    (root / "d").mkdir()
    write_array(root / "d" / "x.b2nd", np.arange(10))
    (root / "bad.b2nd").write_bytes(b"junk")
    (root / "link").symlink_to("d")
    for path in (root / "d" / "x.b2nd", root / "bad.b2nd"):
        path.chmod(0o444)
    for path in (root / "d", root):
        path.chmod(0o555)
    before = listing(root)
    try:
        async with watch(rescan_s=0.05) as watched:
            await watched.have("d/x.b2nd", "bad.b2nd", "link/x.b2nd")
            scans = watched.watcher.stats.scans
            async with asyncio.timeout(30):
                while watched.watcher.stats.scans < scans + 3:
                    await asyncio.sleep(0.01)
        assert listing(root) == before
    finally:
        for path in (root, root / "d"):
            path.chmod(0o755)


@pytest.mark.parametrize("many", [300])
async def test_many_files_at_once(root, watch, many) -> None:
    async with watch() as watched:
        await watched.have()
        for n in range(many):
            (root / f"x{n}").write_text(str(n))
        await watched.have(*(f"x{n}" for n in range(many)))
        for n in range(0, many, 2):
            (root / f"x{n}").unlink()
        await watched.have(*(f"x{n}" for n in range(1, many, 2)))


async def test_scans_take_little_of_the_time_however_short_the_pause(root, watch, wait_until) -> None:
    for n in range(500):
        (root / f"x{n}").write_text(f"{n}")
    async with watch(rescan_s=0.0) as watched:
        await watched.have(*(f"x{n}" for n in range(500)))
        stats = watched.watcher.stats
        scans, seconds, began = stats.scans, stats.scan_seconds, time.monotonic()
        await wait_until(lambda: stats.scans >= scans + 3, 60)
        assert stats.scan_seconds - seconds < 0.05 * (time.monotonic() - began)
