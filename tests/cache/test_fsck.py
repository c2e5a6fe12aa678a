from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from threading import get_ident

import pytest

from caterva2.cache.mirror import Mirror
from caterva2.errors import Unavailable
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.extents import FIXED_SLOTS
from caterva2.testing.contracts import all_extents, read_all


@pytest.fixture
def flip(mirror_files):
    """Flip bytes of the one mirror."""

    def flip(*offsets):
        (file,) = [file for file in mirror_files() if file.suffix == ".data"]
        with file.open("r+b") as mirror:
            for offset in offsets:
                mirror.seek(offset)
                (byte,) = mirror.read(1)
                mirror.seek(offset)
                mirror.write(bytes([byte ^ 1]))

    return flip


async def test_what_is_right_is_left_alone(cached, origin, path, data):
    await read_all(cached, path)
    last_used = cached.state(path).last_used
    asked = dict(origin.calls)
    (found,) = await cached.fsck(path)
    assert found.sound
    assert (found.extents, found.bytes) == (21, len(data))
    assert dict(origin.calls) == asked
    assert cached.state(path).last_used == last_used, "a check is no use"


async def test_flipped_bytes_are_found_and_repaired(cached, origin, path, data, flip, caplog):
    await read_all(cached, path)
    flip(5, 7 * PAGE + 9, 7 * PAGE + 10)
    origin.reads.clear()
    with caplog.at_level(logging.WARNING):
        (found,) = await cached.fsck(path)
    assert not found.sound
    assert (found.wrong, found.repaired, found.dropped, found.corrected_bytes) == (2, 2, 0, 0)
    assert origin.reads.total() == 2
    assert str(path) in caplog.text
    assert str(7 * PAGE) in caplog.text
    assert cached.state(path).complete
    assert await read_all(cached, path) == data
    (found,) = await cached.fsck(path)
    assert found.sound


async def test_maps_are_not_read_on_the_event_loop(cached, path, flip, monkeypatch):
    await read_all(cached, path)
    flip(5)
    numbers = Mirror.numbers
    threads = set()
    monkeypatch.setattr(Mirror, "numbers", lambda mirror: threads.add(get_ident()) or numbers(mirror))
    (found,) = await cached.fsck(path)
    assert found.repaired == 1
    assert threads
    assert get_ident() not in threads


async def test_a_reader_that_comes_while_the_map_is_counted(cached, path, monkeypatch):
    """What a reader changes meanwhile is in the map and in the count, or in neither."""
    head = await cached.head(path)
    extents = await all_extents(cached, head)
    await cached.read(head, extents[:3])
    (version,) = cached._store.all_of(path)
    loop = asyncio.get_running_loop()
    numbers, calls = Mirror.numbers, []

    def with_a_write_after(mirror):
        found = numbers(mirror)
        calls.append(None)
        if len(calls) == 2:  # the first is for what is to be checked
            asyncio.run_coroutine_threadsafe(cached.read(head, extents[3:5]), loop).result(5)
        return found

    monkeypatch.setattr(Mirror, "numbers", with_a_write_after)
    (found,) = await cached.fsck(path)
    assert found.sound
    assert len(calls) == 3
    assert version.cached_bytes == cached.stats.cached_bytes == 5 * PAGE


async def test_what_cannot_be_had_is_dropped(cached, origin, path, data, flip):
    await read_all(cached, path)
    flip(5)
    origin.failures.append(Unavailable("gone"))
    (found,) = await cached.fsck(path)
    assert (found.wrong, found.repaired, found.dropped) == (1, 0, 1)
    state = cached.state(path)
    assert (state.cached_bytes, state.complete) == (len(data) - PAGE, False)
    assert cached.stats.cached_bytes == state.cached_bytes
    assert await read_all(cached, path) == data


async def test_frames_of_blocks(opened, path, array_bytes, origin, flip):
    path = path.__class__("foo", "x.b2nd")
    origin.publish(path, array_bytes)
    async with opened() as cached:
        assert await read_all(cached, path) == array_bytes
        flip(0, len(array_bytes) // 2, len(array_bytes) - 1)
        (found,) = await cached.fsck(path)
        assert (found.wrong, found.repaired) == (3, 3)
        assert (await cached.fsck(path))[0].sound
        assert await read_all(cached, path) == array_bytes


async def test_extents_without_a_page_are_dropped(opened, path, data, tmp_path):
    async with opened() as cached:
        await read_all(cached, path)
    with closing(sqlite3.connect(tmp_path / "cache" / "index.sqlite")) as connection, connection:
        connection.execute("DELETE FROM pages")
    async with opened() as cached:
        (found,) = await cached.fsck(path)
        assert (found.extents, found.dropped, found.corrected_bytes) == (0, 21, -len(data))
        assert cached.stats.cached_bytes == cached.state(path).cached_bytes == 0
        assert not cached.state(path).complete
        assert await read_all(cached, path) == data


async def test_a_version_without_a_head_is_dropped(opened, path, data, tmp_path):
    async with opened() as cached:
        await read_all(cached, path)
    with closing(sqlite3.connect(tmp_path / "cache" / "index.sqlite")) as connection, connection:
        connection.execute("UPDATE versions SET head = X'00'")
    async with opened() as cached:
        (found,) = await cached.fsck(path)
        assert found.dropped == 21
        assert cached.states() == []
        assert await read_all(cached, path) == data


async def test_the_count_is_set_right(opened, path, data, mirror_files):
    async with opened() as cached:
        head = await cached.head(path)
        await cached.read(head, (await all_extents(cached, head))[:3])
    (map_file,) = [file for file in mirror_files() if file.suffix == ".map"]
    with map_file.open("r+b") as file:
        file.seek(FIXED_SLOTS)
        file.write(b"\0")  # lost a mark
        file.seek(FIXED_SLOTS + 1)
        file.write(b"\1")  # a mark of an extent that there is not
    async with opened() as cached:
        (found,) = await cached.fsck(path)
        assert (found.dropped, found.corrected_bytes) == (1, -PAGE)
        assert cached.stats.cached_bytes == cached.state(path).cached_bytes == 2 * PAGE
        assert (await cached.fsck(path))[0].sound


async def test_versions_that_are_here_are_listed(cached, origin, path, data):
    await read_all(cached, path)
    (state,) = cached.states()
    assert (state.path, state.size, state.cached_bytes, state.complete) == (path, len(data), len(data), True)
    assert state.current
    origin.withdraw(path)
    assert not cached.states()[0].current
    (found,) = await cached.fsck(path)
    assert found.sound
