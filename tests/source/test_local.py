"""Reading originals: every byte belongs to one version, or the reader is told."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.source.shelf import Shelf

from caterva2.errors import Changed, Corrupt, Unavailable
from caterva2.frame.write import write_array, write_frame
from caterva2.model.extents import FILE_EXTENT_BYTES, digest
from caterva2.model.path import DatasetPath
from caterva2.source.files import stat_key
from caterva2.source.local import PIECE_BYTES, LocalSource
from caterva2.testing.contracts import SourceContract, all_extents


@pytest.fixture
def shelf(tmp_path):
    directory = tmp_path / "root"
    (directory / "dir").mkdir(parents=True)
    return Shelf(directory)


@pytest.fixture
async def source(shelf):
    with ThreadPoolExecutor(4) as executor:
        source = LocalSource(shelf, executor)
        yield source
        await source.close()


class TestLocalSource(SourceContract):
    @pytest.fixture
    def published(self, shelf):
        directory, randbytes = shelf.directory, random.Random(2).randbytes
        write_array(directory / "a.b2nd", np.arange(100_000).reshape(100, 1000), chunks=(10, 300))
        write_array(directory / "dir" / "zéro d.b2nd", np.array(7.5))
        noise = np.frombuffer(randbytes(3_000_000), np.uint8)
        write_array(directory / "noise.b2nd", noise, chunks=(1_000_000,), blocks=(100_000,))
        write_frame(directory / "f.b2frame", b"hello" * 1000)
        (directory / "empty").write_bytes(b"")
        (directory / "large.bin").write_bytes(randbytes(40 * PIECE_BYTES + 13))
        names = ["a.b2nd", "dir/zéro d.b2nd", "noise.b2nd", "f.b2frame", "empty", "large.bin"]
        return {shelf.publish(name): (directory / name).read_bytes() for name in names}


@pytest.fixture
def big(shelf):
    """A dataset of several pieces, and its bytes."""
    data = random.Random(3).randbytes(5 * PIECE_BYTES)
    (shelf.directory / "big").write_bytes(data)
    return shelf.publish("big"), data


def replace_file(path: Path, data: bytes) -> None:
    new = path.with_name(".new")
    new.write_bytes(data)
    new.replace(path)


async def test_pages_are_made_once_whoever_asks(source, big) -> None:
    head = await source.head(big[0])
    pages = await asyncio.gather(*(source.pages(head, [0, 0]) for _ in range(10)))
    assert source.stats.pages_made == 1
    assert source.stats.bytes_hashed == len(big[1])
    assert {id(page) for found in pages for page in found} == {id(pages[0][0])}


async def test_pages_are_kept_by_the_originals(source, shelf, big) -> None:
    head = await source.head(big[0])
    (page,) = await source.pages(head, [0])
    with ThreadPoolExecutor(1) as executor:
        again = LocalSource(shelf, executor)
        (kept,) = await again.pages(head, [0])
        assert kept.encode() == page.encode()
        assert again.stats.pages_made == 0


@pytest.mark.parametrize("bit", [0, 1000, -1])
async def test_what_was_kept_and_is_damaged_is_made_anew_once(source, shelf, big, bit, caplog) -> None:
    path = big[0]
    head = await source.head(path)
    (page,) = await source.pages(head, [0])
    for kept in (shelf.heads, shelf.kept):
        (key,) = kept
        changed = bytearray(kept[key])
        changed[bit // 8] ^= 1 << bit % 8
        kept[key] = bytes(changed)
    with ThreadPoolExecutor(4) as executor:
        for damaged in (2, 0):
            caplog.clear()
            again = LocalSource(shelf, executor)
            heads = await asyncio.gather(*(again.head(path) for _ in range(5)))
            assert {found.encode() for found in heads} == {head.encode()}
            pages = await asyncio.gather(*(again.pages(heads[0], [0]) for _ in range(5)))
            assert {found.encode() for (found,) in pages} == {page.encode()}
            assert again.stats.damaged == damaged
            assert len([record for record in caplog.records if "damaged" in record.getMessage()]) == damaged


async def test_the_head_of_another_is_not_believed(source, shelf, big) -> None:
    (shelf.directory / "other").write_bytes(b"other")
    other = shelf.publish("other")
    etag = shelf.version(big[0]).etag
    right, shelf.heads[big[0], etag] = (
        shelf.heads[big[0], etag],
        shelf.heads[other, shelf.version(other).etag],
    )
    assert (await source.head(big[0])).encode() == right == shelf.heads[big[0], etag]
    assert source.stats.damaged == 1


async def test_a_head_that_is_damaged_is_not_made_of_another_file(source, shelf, big) -> None:
    path = big[0]
    (key,) = shelf.heads
    shelf.heads[key] = shelf.heads[key][:-1]
    (shelf.directory / "big").write_bytes(b"new")
    with pytest.raises(Changed):
        await source.head(path)
    assert shelf.suspects == [path]
    shelf.reachable = False
    with pytest.raises(Unavailable):
        await source.head(path)


async def test_heads_and_pages_in_memory_are_not_loaded_again(source, shelf, big, monkeypatch) -> None:
    head = await source.head(big[0])
    (page,) = await source.pages(head, [0])
    monkeypatch.setattr(shelf, "load_head", None)
    monkeypatch.setattr(shelf, "load_page", None)
    assert await source.head(big[0]) is head
    assert await source.pages(head, [0]) == [page]


@pytest.mark.parametrize("how", ["written", "replaced", "deleted", "a directory", "a link"])
async def test_a_version_that_is_gone_is_changed_and_looked_at(source, shelf, big, tmp_path, how) -> None:
    path, data = big
    head = await source.head(path)
    extents = await all_extents(source, head)
    file = shelf.directory / "big"
    if how == "written":
        file.write_bytes(data[::-1])
    elif how == "replaced":
        replace_file(file, data)  # the same bytes, but nobody knows that
    else:
        file.unlink()
    if how == "a directory":
        file.mkdir()
    elif how == "a link":
        (tmp_path / "copy").write_bytes(data)
        file.symlink_to(tmp_path / "copy")
    with pytest.raises(Changed) as caught:
        await source.read(head, extents[:1])
    assert caught.value.wanted_etag == head.etag
    with pytest.raises(Changed):
        [piece async for piece in source.stream(head, 0, 10)]
    assert shelf.suspects == [path, path]
    assert source.stats.changed == 2


async def test_a_page_of_a_changed_file_is_not_made(source, shelf, big) -> None:
    head = await source.head(big[0])
    os.truncate(shelf.directory / "big", 1000)
    with pytest.raises(Changed):
        await source.pages(head, [0])
    assert shelf.kept == {}


async def test_the_next_version_is_told_when_it_is_known(source, shelf, big) -> None:
    head = await source.head(big[0])
    (shelf.directory / "big").write_bytes(b"new")
    shelf.publish("big")
    for ask in (source.head(big[0], head.etag), source.read(head, []), source.pages(head, [])):
        with pytest.raises(Changed) as caught:
            await ask
        assert caught.value.current_etag == (await source.head(big[0])).etag


async def test_a_stream_ends_with_the_version_it_began_with_when_the_file_is_replaced(
    source, shelf, big
) -> None:
    path, data = big
    head = await source.head(path)
    stream = source.stream(head, 0, head.size)
    pieces = [await anext(stream)]
    replace_file(shelf.directory / "big", b"x" * len(data))
    pieces += [piece async for piece in stream]
    assert b"".join(pieces) == data


async def test_a_stream_breaks_off_when_the_file_is_written(source, shelf, big) -> None:
    path, data = big
    head = await source.head(path)
    stream = source.stream(head, 0, head.size)
    assert await anext(stream) == data[:PIECE_BYTES]
    with (shelf.directory / "big").open("r+b") as file:
        file.seek(3 * PIECE_BYTES)
        file.write(b"other")
    with pytest.raises(Changed):
        [piece async for piece in stream]
    await stream.aclose()


async def wait_for(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def open_files(path: Path) -> int:
    def target(fd: Path) -> str:
        try:
            return str(fd.readlink())
        except FileNotFoundError:
            return ""

    return sum(target(fd) == str(path) for fd in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at descriptors through /proc")
async def test_streams_that_are_left_or_cancelled_close_their_file(source, shelf, big) -> None:
    path, _ = big
    head = await source.head(path)
    file = shelf.directory / "big"
    left = source.stream(head, 0, head.size)
    await anext(left)
    assert open_files(file) == 1
    await left.aclose()

    async def drain() -> None:
        async for _ in source.stream(head, 0, head.size):
            pass

    for turns in range(30):  # cancelled while opening, reading, waiting
        task = asyncio.create_task(drain())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await wait_for(lambda: open_files(file) == 0)


async def test_an_unplugged_root_is_unavailable_and_its_heads_are_still_known(source, shelf, big) -> None:
    head = await source.head(big[0])
    extents = await all_extents(source, head)
    shelf.reachable = False
    shelf.directory.rename(shelf.directory.with_name("elsewhere"))
    assert (await source.head(big[0])).etag == head.etag
    assert await source.pages(head, [0])
    with pytest.raises(Unavailable):
        await source.read(head, extents[:1])
    with pytest.raises(Unavailable):
        [piece async for piece in source.stream(head, 0, 10)]


async def test_a_chunk_that_is_corrupt_is_that_and_not_a_change(source, shelf) -> None:
    file = shelf.directory / "a.b2nd"
    noise = np.frombuffer(random.Random(4).randbytes(100_000), np.uint8)
    write_array(file, noise, chunks=(10_000,), blocks=(1000,))
    path = DatasetPath("foo", "a.b2nd")
    shelf.publish("a.b2nd")
    head = await source.head(path)
    with file.open("r+b") as raw:
        raw.seek(len(head.header) + 4)
        raw.write(b"\xff\xff\xff\x7f")  # what the first chunk says of its size
    shelf.publish("a.b2nd")
    with pytest.raises(Corrupt):
        await source.pages(await source.head(path), [0])
    assert shelf.suspects == []


async def test_no_torn_bytes_while_a_writer_rewrites(source, shelf) -> None:
    """Each answer is of one version, or `Changed`."""
    file = shelf.directory / "x.bin"
    size = 3 * FILE_EXTENT_BYTES
    file.write_bytes(b"\0" * size)
    path = shelf.publish("x.bin")
    stop, answers, changes = threading.Event(), 0, 0

    def write() -> None:
        value = 0
        while not stop.is_set():
            value = (value + 1) % 251
            if value % 3:
                with file.open("r+b") as raw:  # in place, in two halves
                    raw.write(bytes([value]) * (size // 2))
                    raw.flush()
                    raw.write(bytes([value]) * (size - size // 2))
            else:
                replace_file(file, bytes([value]) * size)
            stop.wait(random.uniform(0.002, 0.03))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        loop = asyncio.get_running_loop()
        until = loop.time() + 2
        while loop.time() < until:
            head = await source.head(path)
            try:
                extents = await all_extents(source, head)
                data = await source.read(head, extents)
            except Changed:
                changes += 1
                old, before = shelf.versions[path], file.stat()
                if len(set(file.read_bytes())) == 1:
                    shelf.publish("x.bin")
                    if shelf.versions[path].key != stat_key(before):  # written since: not known to be whole
                        shelf.versions[path] = old
                continue
            answers += 1
            whole = b"".join(data)
            assert len(whole) == size
            assert [digest(part) for part in data] == [extent.digest for extent in extents]
            assert len(set(whole)) == 1, "bytes of two versions in one answer"
    finally:
        stop.set()
        writer.join()
    assert answers > 20
    assert changes > 20
