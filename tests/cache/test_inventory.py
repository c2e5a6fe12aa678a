import logging
import sqlite3
from contextlib import closing

import pytest

from caterva2.cache import disk, inventory
from caterva2.errors import ConfigError
from caterva2.testing.contracts import read_all
from caterva2.testing.waiting import until


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


class TestDirectoryThatCannotBeUsed:
    async def test_everything_is_passed_through(self, opened, path, data, directory, caplog):
        directory.write_text("in the way")
        with caplog.at_level(logging.WARNING):
            async with opened() as cached:
                assert cached.stats.degraded
                for _ in range(3):
                    assert await read_all(cached, path) == data
                head = await cached.head(path)
                assert b"".join([piece async for piece in cached.stream(head, 5, 99)]) == data[5:99]
                await cached.fill(head)
                assert await cached.drop(path) == 0
                assert (await cached.fsck(path), cached.states()) == ([], [])
                assert cached.state(path).cached_bytes == cached.stats.cached_bytes == 0
                assert cached.stats.passed_through >= 3 * 21
                assert cached.stats.degraded
        (message,) = [record.getMessage() for record in caplog.records]
        assert str(directory) in message and "passed through" in message and "\n" not in message

    async def test_it_is_used_once_it_can_be(self, opened, path, data, directory, monkeypatch):
        monkeypatch.setattr(inventory, "RETRY_S", 0)
        monkeypatch.setattr(disk, "RECOVERED_S", 0.1)
        directory.write_text("in the way")
        async with opened() as cached:
            assert await read_all(cached, path) == data
            directory.unlink()
            assert await read_all(cached, path) == data
            assert cached.state(path).complete
            await until(lambda: not cached.stats.degraded)

    async def test_what_was_here_is_found_then(self, opened, origin, path, data, directory, monkeypatch):
        async with opened() as cached:
            await read_all(cached, path)
        aside = directory.rename(directory.with_name("aside"))
        directory.write_text("in the way")
        monkeypatch.setattr(inventory, "RETRY_S", 0)
        async with opened() as cached:
            assert await read_all(cached, path) == data
            origin.reads.clear()
            directory.unlink()
            aside.rename(directory)
            assert await read_all(cached, path) == data
            assert origin.reads.total() == 0
            assert cached.stats.cached_bytes == len(data)

    async def test_it_is_not_tried_all_the_time(self, opened, path, directory, monkeypatch):
        directory.write_text("in the way")
        async with opened() as cached:
            for _ in range(5):
                await read_all(cached, path)
            assert cached.stats.disk_errors == 1


class TestDamagedIndex:
    @pytest.fixture(params=["no database", "rows"])
    def damage(self, request, directory):
        def damage():
            file = directory / "index.sqlite"
            with closing(sqlite3.connect(file)) as connection:
                (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
                root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'versions'")
                start = (root.fetchone()[0] - 1) * page_bytes if request.param == "rows" else 0
            with file.open("r+b") as database:
                database.seek(start)
                database.write(b"x" * page_bytes)

        return damage

    async def test_it_is_put_aside(self, opened, path, data, directory, damage, mirror_files, caplog):
        async with opened() as cached:
            await read_all(cached, path)
        damage()
        with caplog.at_level(logging.WARNING):
            async with opened() as cached:
                assert not cached.stats.degraded
                assert (cached.states(), mirror_files()) == ([], [])
                assert await read_all(cached, path) == data
                assert cached.state(path).complete
        assert (directory / "index.sqlite.damaged").exists()
        assert [record for record in caplog.records if "index.sqlite is damaged" in record.getMessage()]
        async with opened() as cached:
            assert cached.state(path).complete


class TestNewerRelease:
    async def test_at_the_start_it_is_refused(self, opened, directory):
        await self.make_newer(opened, directory)
        with pytest.raises(ConfigError, match="newer release"):
            async with opened():
                pass

    async def test_later_everything_is_passed_through(self, opened, path, data, directory, monkeypatch):
        await self.make_newer(opened, directory)
        aside = directory.rename(directory.with_name("aside"))
        directory.write_text("in the way")
        monkeypatch.setattr(inventory, "RETRY_S", 0)
        async with opened() as cached:
            directory.unlink()
            aside.rename(directory)
            assert await read_all(cached, path) == data
            assert cached.stats.degraded

    async def make_newer(self, opened, directory):
        async with opened():
            pass
        with closing(sqlite3.connect(directory / "index.sqlite")) as connection:
            connection.execute("PRAGMA user_version = 1000")
