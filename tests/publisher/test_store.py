"""What survives a restart."""

from __future__ import annotations

import sqlite3
import time

import pytest

from caterva2.errors import ConfigError
from caterva2.model.root import Entry
from caterva2.publisher import store as module
from caterva2.publisher.store import CLEAN_ROWS, PublisherStore, Record
from caterva2.source.files import StatKey


def record(generation: int = 1, **entry) -> Record:
    made = Entry(f"{generation:032x}", generation, 10, "file", 1.5, **entry)
    return Record(StatKey(2**62, 10, 1_500_000_000, 7), b"c" * 16, made)


def test_names_are_random_and_stay(tmp_path) -> None:
    one, two = PublisherStore(tmp_path / "1"), PublisherStore(tmp_path / "2")
    names = {one.origin, one.instance, two.origin, two.instance}
    assert len(names) == 4
    one.close()
    two.close()
    again = PublisherStore(tmp_path / "1")
    assert (again.origin, again.instance) == (one.origin, one.instance)
    again.close()


def test_versions_stay_as_they_were(tmp_path) -> None:
    store = PublisherStore(tmp_path / "s")
    saved = {
        "a b/ü.txt": record(5),
        "x.b2nd": record(6, shape=(2, 3), dtype="float32"),
        "zero.b2nd": record(7, shape=(), dtype="float32"),
        "bad.b2nd": record(8, error="cut"),
    }
    store.save("foo", [(name, one, name.encode()) for name, one in saved.items()])
    store.save("bar", [("x.b2nd", record(9), b"")])
    store.close()
    store = PublisherStore(tmp_path / "s")
    assert store.records("foo") == saved
    assert store.head("foo", "x.b2nd", saved["x.b2nd"].entry.etag) == b"x.b2nd"
    assert store.head("foo", "x.b2nd", "0" * 32) is None
    store.close()


def test_a_touched_file_keeps_its_head(store) -> None:
    store.save("foo", [("x", record(), b"head")])
    touched = Record(StatKey(1, 10, 2, 3), b"c" * 16, record().entry)
    store.save("foo", [("x", touched, None)])
    assert store.records("foo") == {"x": touched}
    assert store.head("foo", "x", touched.entry.etag) == b"head"


def test_heads_made_anew_are_kept_for_the_current_version_only(store) -> None:
    store.save("foo", [("x", record(5), b"damaged")])
    etag = record(5).entry.etag
    store.save_head("foo", "x", etag, b"sound")
    assert store.head("foo", "x", etag) == b"sound"
    store.save_head("foo", "x", "0" * 32, b"old")
    store.save_head("foo", "y", etag, b"other")
    assert store.head("foo", "x", etag) == b"sound"
    assert store.head("foo", "y", etag) is None


def test_generations_only_grow(store) -> None:
    now = time.time_ns() // 1_000_000
    assert store.next_generation("foo", "x", now) == now
    store.save("foo", [("x", record(now + 10_000), b"")])
    assert store.next_generation("foo", "x", now) == now + 10_001
    store.delete("foo", ["x", "never there"])
    assert store.records("foo") == {}
    assert store.next_generation("foo", "x", now) == now + 10_001
    assert store.next_generation("foo", "never there", now) == now


def test_many_deletions_are_remembered_as_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "TOMBSTONES_KEPT", 20)
    store = PublisherStore(tmp_path / "s")
    names = [f"x{n}" for n in range(30)]
    store.save("foo", [(name, record(1000 + n), b"") for n, name in enumerate(names)])
    store.delete("foo", names)
    store.close()
    store = PublisherStore(tmp_path / "s")
    for n, name in enumerate(names):
        assert store.next_generation("foo", name, 5) > 1000 + n
    store.close()
    with sqlite3.connect(tmp_path / "s") as db:
        assert db.execute("SELECT count(*) FROM datasets").fetchone()[0] <= 20
    db.close()


def test_pages_of_old_versions_go_bit_by_bit(store) -> None:
    old, new = record(1), record(2)
    store.save("foo", [("x", old, b"head")])
    for number in range(450):
        store.save_page("foo", "x", old.entry.etag, number, b"old")
    store.save("foo", [("x", new, b"head"), ("y", new, b"head")])
    store.save_page("foo", "x", new.entry.etag, 0, b"new")
    store.save_page("foo", "x", old.entry.etag, 500, b"too late")
    assert store.page("foo", "x", old.entry.etag, 500) is None
    calls = 0
    while store.clean():
        calls += 1
        assert calls < 20
    assert calls >= 450 // CLEAN_ROWS
    assert all(store.page("foo", "x", old.entry.etag, number) is None for number in range(450))
    assert store.page("foo", "x", new.entry.etag, 0) == b"new"


def test_pages_of_deleted_datasets_go(store) -> None:
    store.save("foo", [("x", record(), b"head")])
    store.save_page("foo", "x", record().entry.etag, 0, b"page")
    store.delete("foo", ["x"])
    while store.clean():
        pass
    assert store.page("foo", "x", record().entry.etag, 0) is None
    assert store.head("foo", "x", record().entry.etag) is None


def test_devices_belong_to_a_directory(store) -> None:
    assert store.device("foo", "/data") is None
    store.set_device("foo", "/data", 7)
    assert store.device("foo", "/data") == 7
    assert store.device("foo", "/other") is None


def test_a_damaged_file_is_put_aside(tmp_path) -> None:
    file = tmp_path / "s"
    file.write_bytes(b"no database at all, but as long as a header would be" * 100)
    store = PublisherStore(file)
    assert store.records("foo") == {}
    store.close()
    assert (tmp_path / "s.damaged").read_bytes().startswith(b"no database")


def test_a_newer_file_is_refused(tmp_path) -> None:
    PublisherStore(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="99"):
        PublisherStore(tmp_path / "s")


def test_many_versions_are_written_at_once(store) -> None:
    names = [f"x{n}" for n in range(2 * module.ROWS_PER_STATEMENT + 7)]
    first = {name: record(n + 1, shape=(n, 2), dtype="int8") for n, name in enumerate(names)}
    store.save("foo", [(name, first[name], name.encode()) for name in names])
    assert store.records("foo") == first
    assert store.generations("foo", [*names, "other"]) == {n: r.entry.generation for n, r in first.items()}
    for name in names:
        etag = first[name].entry.etag
        assert store.head("foo", name, etag) == name.encode()
        store.save_page("foo", name, etag, 0, b"page")
    store.save("foo", [(name, record(n + 1000), b"new") for n, name in enumerate(names)])
    while store.clean():
        pass
    assert all(store.page("foo", name, first[name].entry.etag, 0) is None for name in names)
