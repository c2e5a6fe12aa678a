from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from caterva2.bus.view import Position
from caterva2.errors import ConfigError
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry
from caterva2.subscriber import store as module
from caterva2.subscriber.store import SCHEMA_VERSION, SubscriberStore

ARRAY = Entry("e" * 32, 7, 1234, "array", 1.5, (3, 0, 5), "[('x', '<U3')]")
FILE = Entry("f" * 32, 8, 0, "file", 2.5, error="corrupt: no frame")


async def test_a_catalogue_is_known_again_unconfirmed(tmp_path) -> None:
    store, catalogue = SubscriberStore(tmp_path / "db"), Catalogue()
    store.keep(catalogue)
    catalogue.set_root("foo", url="http://h:1", title="Données", instance="i1", origin="o", via=("t", "i1"))
    catalogue.set_state("foo", "online")
    catalogue.apply("foo", "dir/a b é.b2nd", ARRAY)
    catalogue.apply("foo", "x", FILE)
    catalogue.apply("foo", "gone", FILE)
    catalogue.apply("foo", "gone", None)
    catalogue.confirm("foo")
    store.write_roots()
    await asyncio.sleep(0)
    store.close()

    again, store = Catalogue(), SubscriberStore(tmp_path / "db")
    store.load(again)
    root = again.root("foo")
    assert (root.url, root.title, root.instance, root.state) == ("http://h:1", "Données", "i1", "unknown")
    assert root.entries == {"dir/a b é.b2nd": ARRAY, "x": FILE}
    assert (root.origin, root.via) == ("o", ("t", "i1"))
    assert root.digest == catalogue.root("foo").digest
    assert not root.freshness.fresh
    assert 0 <= root.freshness.age_s < 60
    assert again.entry(DatasetPath("foo", "x")).error == "corrupt: no frame"
    store.close()


async def test_datasets_of_a_root_that_was_not_written_yet_are_known(tmp_path) -> None:
    """The subscriber ended after it saw datasets, and before it saw whether who serves them is there."""
    store, catalogue = SubscriberStore(tmp_path / "db"), Catalogue()
    store.keep(catalogue)
    catalogue.set_root("foo", url="http://h:1")
    catalogue.apply("foo", "x", FILE)
    await asyncio.sleep(0)
    store.close()
    again, store = Catalogue(), SubscriberStore(tmp_path / "db")
    store.load(again)
    assert again.root("foo").entries == {"x": FILE}
    assert not again.root("foo").fresh
    store.close()


async def test_deletions_and_resets_are_known_again(tmp_path) -> None:
    store, catalogue = SubscriberStore(tmp_path / "db"), Catalogue()
    store.keep(catalogue)
    catalogue.set_root("foo")
    catalogue.confirm("foo")
    for name in ("gone", "back"):
        catalogue.apply("foo", name, FILE)
        catalogue.apply("foo", name, None)
    catalogue.apply("foo", "back", FILE)
    store.write_roots()
    store.close()

    again, store = Catalogue(), SubscriberStore(tmp_path / "db")
    store.load(again)
    store.keep(again)
    assert again.root("foo").deleted == {"gone": FILE.generation}
    assert not again.apply("foo", "gone", replace(FILE, generation=FILE.generation - 1))
    again.reset("foo", 1000)
    await asyncio.sleep(0)
    store.close()

    last, store = Catalogue(), SubscriberStore(tmp_path / "db")
    store.load(last)
    assert (last.root("foo").reset_at, last.root("foo").deleted) == (1000, {})
    assert last.root("foo").entries["gone"].generation == FILE.generation - 1
    store.close()


async def test_only_so_many_deletions_are_kept(tmp_path, monkeypatch) -> None:
    store, catalogue = SubscriberStore(tmp_path / "db"), Catalogue()
    store.keep(catalogue)
    catalogue.set_root("foo")
    for number in range(5):
        catalogue.apply("foo", f"{number}", replace(FILE, generation=number))
        catalogue.apply("foo", f"{number}", None)
    store.write_roots()
    store.close()
    monkeypatch.setattr(module, "DELETED_KEPT", 3)
    again, store = Catalogue(), SubscriberStore(tmp_path / "db")
    store.load(again)
    assert again.root("foo").deleted == {"2": 2, "3": 3, "4": 4}
    store.close()


async def test_a_removed_root_is_forgotten(tmp_path) -> None:
    store, catalogue = SubscriberStore(tmp_path / "db"), Catalogue()
    store.keep(catalogue)
    catalogue.set_root("foo")
    catalogue.apply("foo", "x", FILE)
    catalogue.remove_root("foo")
    store.write_roots()
    store.close()
    again, store = Catalogue(), SubscriberStore(tmp_path / "db")
    store.load(again)
    assert again.roots == {}
    store.close()


def test_what_was_seen_survives_kill_9(tmp_path) -> None:
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Entry
from caterva2.subscriber.store import SubscriberStore
async def main():
    store, catalogue = SubscriberStore(Path(sys.argv[1])), Catalogue()
    store.keep(catalogue)
    catalogue.set_root("foo")
    for number in range(500):
        catalogue.apply("foo", f"{number}", Entry(f"{number:032d}", 1, 1, "file", 0.0))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "db")], env=os.environ, check=False)
    assert done.returncode != 0
    catalogue, store = Catalogue(), SubscriberStore(tmp_path / "db")
    catalogue.set_root("foo")
    store.load(catalogue)
    assert len(catalogue.root("foo").entries) == 500
    store.close()


def test_follows_are_kept(tmp_path) -> None:
    store = SubscriberStore(tmp_path / "db")
    for pattern, mode in (("foo", "meta"), ("bar/*", "cached"), ("foo", "full")):
        store.follow(pattern, mode)
    assert store.follows() == {"bar/*": "cached", "foo": "full"}
    assert store.unfollow("foo")
    assert not store.unfollow("foo")
    store.close()
    store = SubscriberStore(tmp_path / "db")
    assert store.follows() == {"bar/*": "cached"}
    store.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path) -> None:
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(ConfigError, match="newer"):
        SubscriberStore(tmp_path / "db")


def test_what_is_no_database_is_put_aside(tmp_path) -> None:
    (tmp_path / "db").write_bytes(b"not a database, " * 1000)
    store = SubscriberStore(tmp_path / "db")
    assert store.follows() == {}
    store.close()
    assert (tmp_path / "db.damaged").read_bytes().startswith(b"not a database")


def test_follows_of_the_first_release_are_kept(tmp_path) -> None:
    store = SubscriberStore(tmp_path / "db")
    store.follow("foo", "full")
    store.close()
    with sqlite3.connect(tmp_path / "db") as older:
        older.executescript(
            "DROP TABLE pins; DROP TABLE deleted; DROP TABLE position; DROP TABLE meta;"
            "ALTER TABLE roots DROP COLUMN reset_at;"
            "ALTER TABLE roots DROP COLUMN origin; ALTER TABLE roots DROP COLUMN via;"
        )
        older.execute("ALTER TABLE follows DROP COLUMN mode")
        older.execute("PRAGMA user_version = 1")
    older.close()
    store = SubscriberStore(tmp_path / "db")
    assert (store.follows(), store.pins()) == ({"foo": "cached"}, [])
    store.pin("foo/*")
    store.close()
    store = SubscriberStore(tmp_path / "db")
    assert store.pins() == ["foo/*"]
    store.close()


async def test_a_position_is_known_again_and_forgotten_with_the_first_change_that_it_does_not_cover(
    tmp_path,
) -> None:
    store, catalogue = SubscriberStore(tmp_path / "db"), Catalogue()
    position: Position | None = Position("2026-01-01", 7, 1.5, ((6, "100"), (7, "101")))
    store.keep(catalogue, lambda: position)
    catalogue.set_root("foo")
    catalogue.apply("foo", "x", FILE)
    store.write_roots()
    await asyncio.sleep(0)
    store.close()

    store = SubscriberStore(tmp_path / "db")
    assert store.position() == position
    catalogue = Catalogue()
    store.load(catalogue)
    store.keep(catalogue, lambda: position)
    position = None
    assert store.position() is not None
    catalogue.apply("foo", "y", FILE)
    await asyncio.sleep(0)
    assert store.position() is None
    store.close()


def test_it_has_a_name_that_stays(tmp_path) -> None:
    names = []
    for state in ("db", "db", "other"):
        store = SubscriberStore(tmp_path / state)
        names += [store.instance(), store.instance()]
        store.close()
    assert len(set(names[:4])) == 1
    assert names[4] != names[0]
