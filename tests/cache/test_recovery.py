import asyncio
import logging
import shutil
import threading
from contextlib import closing

import pytest

from caterva2.cache import inventory
from caterva2.cache.index import Index
from caterva2.errors import Unavailable
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.testing.contracts import all_extents, read_all


class TestDamage:
    async def test_a_flipped_byte_is_found_after_a_restart(
        self, opened, origin, path, data, caplog, mirror_files
    ):
        async with opened() as cached:
            await read_all(cached, path)
        (data_file,) = [file for file in mirror_files() if file.suffix == ".data"]
        where = 7 * PAGE + 5
        with data_file.open("r+b") as file:
            file.seek(where)
            file.write(bytes([data[where] ^ 1]))
        origin.reads.clear()
        async with opened() as cached:
            with caplog.at_level(logging.WARNING):
                assert await read_all(cached, path) == data
            assert cached.stats.rejected == 1
            assert [number for _, _, number in origin.reads] == [4 + 7 * 2]
            assert str(path) in caplog.text
            assert cached.state(path).complete
        assert data_file.read_bytes() == data

    async def test_orphans_are_removed(self, opened, tmp_path, mirror_files):
        mirrors = tmp_path / "cache" / "mirrors"
        mirrors.mkdir(parents=True)
        (mirrors / "left.data").write_bytes(b"x")
        (mirrors / "left.map").write_bytes(b"x")
        async with opened():
            assert mirror_files() == []

    async def test_a_version_whose_file_is_gone_is_fetched_again(
        self, opened, path, data, mirror_files, tmp_path
    ):
        async with opened() as cached:
            await read_all(cached, path)
        for file in mirror_files():
            file.unlink()
        async with opened() as cached:
            assert cached.state(path).cached_bytes == cached.stats.cached_bytes == 0
        with closing(Index(tmp_path / "cache" / "index.sqlite")) as index:
            assert index.rows() == []
        async with opened() as cached:
            assert await read_all(cached, path) == data

    async def test_what_was_not_closed_is_counted_again(self, opened, path, data, tmp_path):
        async with opened() as cached:
            head = await cached.head(path)
            await cached.read(head, (await all_extents(cached, head))[::2])
            expected = cached.stats.cached_bytes
            # as after kill -9: nothing more is written
            shutil.copytree(tmp_path / "cache", tmp_path / "copy")
        async with opened(directory=tmp_path / "copy") as cached:
            assert cached.stats.cached_bytes == cached.state(path).cached_bytes == expected
            assert await read_all(cached, path) == data

    async def test_what_is_written_while_the_index_is_told_of_use_is_counted_again(
        self, opened, path, data, tmp_path, monkeypatch
    ):
        """The rows are written in threads: what says clean may come after what says dirty."""
        async with opened() as cached:
            head = await cached.head(path)
            extents = await all_extents(cached, head)
            await cached.read(head, extents[:3])
        update, mark_dirty = Index.update, Index.mark_dirty
        marked = threading.Event()

        def late_update(index, states):
            marked.wait(5)
            update(index, states)

        def early_mark(index, version):
            mark_dirty(index, version)
            marked.set()

        monkeypatch.setattr(Index, "update", late_update)
        monkeypatch.setattr(Index, "mark_dirty", early_mark)
        monkeypatch.setattr(inventory, "FLUSH_S", 0)
        async with opened() as cached:
            await cached.read(head, extents[:1])
            monkeypatch.setattr(inventory, "FLUSH_S", 100)
            await cached.read(head, extents[3:7])
            expected = cached.stats.cached_bytes
            await asyncio.sleep(0)
            await cached._store._disk.close()  # all that was given to threads is done
            shutil.copytree(tmp_path / "cache", tmp_path / "copy")  # as after kill -9
        async with opened(directory=tmp_path / "copy") as cached:
            assert cached.stats.cached_bytes == cached.state(path).cached_bytes == expected == 7 * PAGE

    async def test_what_was_found_to_be_wrong_is_counted_again(
        self, opened, path, data, tmp_path, mirror_files
    ):
        async with opened() as cached:
            await read_all(cached, path)
        (data_file,) = [file for file in mirror_files() if file.suffix == ".data"]
        with data_file.open("r+b") as file:
            file.write(bytes([data[0] ^ 1]))
        async with opened() as cached:
            head = await cached.head(path)
            (version,) = cached._store.all_of(path)
            extents = await all_extents(cached, head)
            assert await cached._store.read(version, extents[:2]) == [None, data[PAGE : 2 * PAGE]]
            expected = cached.stats.cached_bytes
            await cached._store._disk.close()
            shutil.copytree(tmp_path / "cache", tmp_path / "copy")
        async with opened(directory=tmp_path / "copy") as cached:
            assert cached.stats.cached_bytes == expected == len(data) - PAGE
            assert not cached.state(path).complete

    @pytest.mark.parametrize("damaged", [{"versions": "head"}, {"pages": "page"}], ids=str)
    async def test_a_damaged_manifest_is_fetched_again_once(
        self, opened, path, data, tmp_path, flip_blobs, damaged
    ):
        async with opened() as cached:
            await read_all(cached, path)
        count = flip_blobs(tmp_path / "cache" / "index.sqlite", damaged)
        for found in (count, 0):
            async with opened() as cached:
                assert await read_all(cached, path) == data
                assert await read_all(cached, path) == data
                assert cached.stats.damaged == found

    async def test_a_damaged_manifest_cannot_be_had_while_its_origin_is_away(
        self, opened, path, data, tmp_path, flip_blobs, origin
    ):
        async with opened() as cached:
            await read_all(cached, path)
        flip_blobs(tmp_path / "cache" / "index.sqlite", {"versions": "head"})

        def away(_path):
            raise Unavailable("away")

        async with opened() as cached:
            cached._fetching._origin, back = away, cached._fetching._origin
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await cached.head(path)
            cached._fetching._origin = back
            assert await read_all(cached, path) == data
            assert cached.stats.damaged == 1
