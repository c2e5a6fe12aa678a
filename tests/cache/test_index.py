import sqlite3
import threading
from contextlib import closing

import pytest

from caterva2.cache.index import REMOVE_PAGES, SCHEMA_VERSION, Index
from caterva2.errors import ConfigError
from caterva2.model.path import DatasetPath

PATH = DatasetPath("foo", "a/b.bin")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.sqlite"


def add(index, etag="e", path=PATH):
    return index.add(path, etag, generation=3, size=10, nextents=6, head=b"head", now=5.0)


def test_kept_over_a_restart(file):
    with closing(Index(file)) as index:
        one = add(index)
        index.add_pages(one, [(0, b"zero"), (2, b"two")])
        index.mark_dirty(one)
        index.settle([(one, 7, True, 9.0)])
    with closing(Index(file)) as index:
        (row,) = index.rows()
        assert (row.id, row.path, row.etag, row.generation, row.size, row.nextents) == (
            one,
            PATH,
            "e",
            3,
            10,
            6,
        )
        assert (row.cached_bytes, row.complete, row.dirty, row.last_used) == (7, True, False, 9.0)
        assert index.head(one) == b"head"
        assert index.page_numbers(one) == [0, 2]
        assert (index.page(one, 2), index.page(one, 1)) == (b"two", None)


def test_removed_with_its_pages_and_its_id_is_not_used_again(file):
    with closing(Index(file)) as index:
        one = add(index)
        index.add_pages(one, [(0, b"zero")])
        index.remove([one])
        assert (index.rows(), index.page(one, 0)) == ([], None)
        assert add(index) > one


def test_removed_in_steps_so_that_others_can_write(file):
    with closing(Index(file)) as index:
        one, two = add(index), add(index, "other")
        count = 2 * REMOVE_PAGES
        index.add_pages(one, [(number, b"page") for number in range(count)])
        index.add_pages(two, [(0, b"zero")])
        left = []
        while index.remove([one]):
            left.append(len(index.page_numbers(one)))
        assert left == [REMOVE_PAGES, 0]
        assert [row.id for row in index.rows()] == [two]
        assert index.page(two, 0) == b"zero"


def test_pages_of_a_version_that_is_gone_are_not_kept(file):
    with closing(Index(file)) as index:
        index.add_pages(99, [(0, b"zero")])
        assert index.page(99, 0) is None


def test_added_again_in_place_of_the_old(file):
    with closing(Index(file)) as index:
        one, two = add(index), add(index)
        assert [row.id for row in index.rows()] == [two]
        assert one != two


def test_dirty(file):
    with closing(Index(file)) as index:
        one = add(index)
        index.mark_dirty(one)
        index.update([(one, 7, True, 9.0)])
        assert index.rows()[0].dirty, "what was used when says nothing of what is being written"
        index.settle([(one, 8, False, 9.0)])
        assert (index.rows()[0].dirty, index.rows()[0].cached_bytes) == (False, 8)


def test_of_the_release_before(file):
    with closing(Index(file)) as index:
        one = add(index)
        index.add_pages(one, [(0, b"zero")])
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            "ALTER TABLE versions ADD COLUMN digest BLOB NOT NULL DEFAULT X'00';"
            "ALTER TABLE pages ADD COLUMN digest BLOB NOT NULL DEFAULT X'00';"
            "PRAGMA user_version = 1;"
        )
    with closing(Index(file)) as index:
        assert (index.head(one), index.page(one, 0)) == (b"head", b"zero")
        index.add_pages(one, [(1, b"one")])
        assert add(index, "other") > one


def test_of_a_newer_release(file):
    Index(file).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigError, match="newer release"):
        Index(file)


def test_damaged(file):
    file.write_bytes(b"this is no database, and long enough to be told from an empty one" * 50)
    with closing(Index(file)) as index:
        assert index.rows() == []
        add(index)
    assert file.with_name("index.sqlite.damaged").exists()


def test_a_failed_write_leaves_nothing_behind(file):
    with closing(Index(file)) as index:
        one = add(index)
        with pytest.raises(sqlite3.Error):
            index.add_pages(one, [(0, b"zero"), (None, b"none")])
        assert index.page_numbers(one) == []
        index.add_pages(one, [(1, b"one")])


def test_writes_from_many_threads_while_reading(file):
    with closing(Index(file)) as index:
        ids = [add(index, etag=str(n)) for n in range(4)]
        threads = [
            threading.Thread(target=lambda v=v: [index.add_pages(v, [(n, b"x")]) for n in range(50)])
            for v in ids
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert len(index.rows()) == 4
        assert [len(index.page_numbers(version)) for version in ids] == [50] * 4
