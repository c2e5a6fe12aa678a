"""What a publisher must know again after a restart: versions, and the manifests that were made of them.

Write order: a version is here before it is announced, so nobody ever hears of one that a restart forgets.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import structlog

from caterva2.database import connect, open_database
from caterva2.model.root import Entry
from caterva2.source.files import StatKey

__all__ = ["PublisherStore", "Record"]

SCHEMA_VERSION = 1

TOMBSTONES_KEPT = 100_000
"""How many deleted datasets are remembered one by one; of older ones only the newest generation is."""

CLEAN_ROWS = 50
"""Pages of old versions that one call of `PublisherStore.clean` deletes at most."""

ROWS_PER_STATEMENT = 50
"""SQLite before 3.32 takes 999 values in a statement."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (name TEXT PRIMARY KEY, directory TEXT NOT NULL, device INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE datasets (
    root TEXT NOT NULL, name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    etag TEXT,  -- NULL: deleted, only the generation is remembered
    ino INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    content BLOB,  -- digest of the content, of small files only
    file_size INTEGER, kind TEXT, mtime REAL, shape TEXT, dtype TEXT, error TEXT,
    PRIMARY KEY (root, name)
) WITHOUT ROWID;
CREATE INDEX tombstones ON datasets (generation) WHERE etag IS NULL;
CREATE TABLE heads (root TEXT NOT NULL, name TEXT NOT NULL, head BLOB NOT NULL, PRIMARY KEY (root, name));
CREATE TABLE pages (
    root TEXT NOT NULL, name TEXT NOT NULL, etag TEXT NOT NULL, number INTEGER NOT NULL, page BLOB NOT NULL,
    PRIMARY KEY (root, name, etag, number)
);
CREATE TABLE stale (root TEXT NOT NULL, name TEXT NOT NULL, etag TEXT NOT NULL);
"""

_VERSION = "name, generation, etag, ino, size, mtime_ns, ctime_ns, content"
_COLUMNS = f"{_VERSION}, file_size, kind, mtime, shape, dtype, error"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """The current version of a dataset.

    Attributes
    ----------
    key : StatKey
        Status of the file while it has this version.
    content : bytes or None
        Digest of the content, of small files only.
    entry : Entry
        What is announced.
    """

    key: StatKey
    content: bytes | None
    entry: Entry


class PublisherStore:
    """An SQLite database in the state directory. Can be used from several threads.

    Parameters
    ----------
    file : Path
        Made if it is absent; one that is damaged is put aside and made anew.

    Attributes
    ----------
    origin : str
        Random name of this set of versions: part of every etag, so that two sets never share one.
    instance : str
        Name of this publisher on the bus.

    Raises
    ------
    ConfigError
        If it was written by a newer release, or cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._db = open_database(file, _SCHEMA, SCHEMA_VERSION)
        self._reader = connect(file)
        self.origin = str(self._once("origin", secrets.token_hex(16)))
        self.instance = str(self._once("instance", secrets.token_hex(8)))
        self._floor = int(self._once("floor", 0))

    def close(self) -> None:
        """Close the database."""
        with self._lock, self._reading:
            self._reader.close()
            self._db.close()

    def _once(self, key: str, value: str | int) -> Any:  # Any: of SQLite's types
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
            return db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _row(self, query: str, values: tuple[str | int, ...]) -> tuple[Any, ...] | None:
        with self._reading:  # does not wait for a write: who reads a page has a reader waiting
            row: tuple[Any, ...] | None = self._reader.execute(query, values).fetchone()
            return row

    # -- roots -----------------------------------------------------------------------------------

    def device(self, root: str, directory: str) -> int | None:
        """Return the device that a root's directory was on when it last had files; None if it never had."""
        query = "SELECT device FROM roots WHERE name = ? AND directory = ?"
        row = self._row(query, (root, directory))
        return int(row[0]) if row else None

    def set_device(self, root: str, directory: str, device: int) -> None:
        """Note the device that a root's directory is on."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO roots VALUES (?, ?, ?)", (root, directory, device))

    def reset_at(self, root: str) -> int:
        """Return when a root was last reset, in milliseconds since the epoch; 0 if it never was."""
        row = self._row("SELECT value FROM meta WHERE key = ?", (f"reset {root}",))
        return int(row[0]) if row else 0

    def set_reset_at(self, root: str, reset_at: int) -> None:
        """Note when a root was reset."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"reset {root}", reset_at))

    # -- versions --------------------------------------------------------------------------------

    def records(self, root: str) -> dict[str, Record]:
        """Return the current versions of a root's datasets, by name."""
        query = f"SELECT {_COLUMNS} FROM datasets WHERE root = ? AND etag IS NOT NULL"
        with self._lock:
            rows = self._db.execute(query, (root,)).fetchall()
        return {row[0]: _record(row) for row in rows}

    def generations(self, root: str, names: Iterable[str]) -> dict[str, int]:
        """Return the last generations of datasets, by name, deleted ones too; of unknown ones none."""
        query = (
            "SELECT name, generation FROM datasets "
            "WHERE root = ? AND name IN (SELECT value FROM json_each(?))"
        )
        with self._reading:
            return dict(self._reader.execute(query, (root, json.dumps(list(names)))))

    def next_generation(self, root: str, name: str, now_ms: int) -> int:
        """Return the generation of a dataset's next version: greater than any that it ever had."""
        return self.generation_after(self.generations(root, [name]).get(name, 0), now_ms)

    def generation_after(self, last: int, now_ms: int) -> int:
        """Return what `next_generation` does, given what `generations` says of the dataset; 0 if nothing."""
        return max(last, self._floor, now_ms - 1) + 1

    def save(self, root: str, versions: Iterable[tuple[str, Record, bytes | None]]) -> None:
        """Write versions, in one transaction.

        Parameters
        ----------
        root : str
        versions : iterable of (str, Record, bytes or None)
            Name, version and encoded head; None where the version is known and only the status of
            its file is another.
        """
        versions = list(versions)
        heads = [(root, name, head) for name, _, head in versions if head is not None]
        rows = [(root, name, *_values(record)) for name, record, _ in versions]
        with self._transaction() as db:
            self._forget_manifests(db, root, [name for _, name, _ in heads])
            _insert(db, "heads", heads)
            _insert(db, f"datasets (root, {_COLUMNS})", rows)

    def delete(self, root: str, names: Iterable[str]) -> None:
        """Forget datasets but for their generations, in one transaction."""
        keys = [(root, name) for name in names]
        with self._transaction() as db:
            self._forget_manifests(db, root, [name for _, name in keys])
            db.executemany("DELETE FROM heads WHERE root = ? AND name = ?", keys)
            db.executemany(
                "UPDATE datasets SET etag = NULL, ino = NULL, size = NULL, mtime_ns = NULL, "
                "ctime_ns = NULL, content = NULL, file_size = NULL, kind = NULL, mtime = NULL, "
                "shape = NULL, dtype = NULL, error = NULL WHERE root = ? AND name = ?",
                keys,
            )
            self._bury(db)

    def _forget_manifests(self, db: sqlite3.Connection, root: str, names: list[str]) -> None:
        db.execute(
            "INSERT INTO stale SELECT root, name, etag FROM datasets "
            "WHERE root = ? AND name IN (SELECT value FROM json_each(?)) AND etag IS NOT NULL",
            (root, json.dumps(names)),
        )

    def _bury(self, db: sqlite3.Connection) -> None:
        """Keep the newest tombstones only; the generations of the others become the floor of all."""
        (count,) = db.execute("SELECT count(*) FROM datasets WHERE etag IS NULL").fetchone()
        if count <= TOMBSTONES_KEPT:
            return
        oldest = "SELECT generation FROM datasets WHERE etag IS NULL ORDER BY generation LIMIT 1 OFFSET ?"
        # A tenth more than needed: the next deletions find room
        (floor,) = db.execute(oldest, (count - TOMBSTONES_KEPT * 9 // 10 - 1,)).fetchone()
        db.execute("DELETE FROM datasets WHERE etag IS NULL AND generation <= ?", (floor,))
        self._floor = max(self._floor, floor)
        db.execute("UPDATE meta SET value = ? WHERE key = 'floor'", (self._floor,))

    # -- manifests -------------------------------------------------------------------------------

    def head(self, root: str, name: str, etag: str) -> bytes | None:
        """Return the encoded head of a version; None if that is not the current version."""
        query = (
            "SELECT head FROM heads JOIN datasets USING (root, name) WHERE root = ? AND name = ? AND etag = ?"
        )
        row = self._row(query, (root, name, etag))
        return bytes(row[0]) if row else None

    def save_head(self, root: str, name: str, etag: str, head: bytes) -> None:
        """Write the head of a version anew; of one that is not the current one any more it is let go of."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO heads SELECT root, name, ? FROM datasets "
                "WHERE root = ? AND name = ? AND etag = ?",
                (head, root, name, etag),
            )

    def page(self, root: str, name: str, etag: str, number: int) -> bytes | None:
        """Return an encoded page; None if it was not made yet."""
        query = "SELECT page FROM pages WHERE root = ? AND name = ? AND etag = ? AND number = ?"
        row = self._row(query, (root, name, etag, number))
        return bytes(row[0]) if row else None

    def save_page(self, root: str, name: str, etag: str, number: int, page: bytes) -> None:
        """Write a page; of a version that is not the current one any more it is let go of."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO pages SELECT root, name, etag, ?, ? FROM datasets "
                "WHERE root = ? AND name = ? AND etag = ?",
                (number, page, root, name, etag),
            )

    def clean(self) -> bool:
        """Delete some pages of versions that are gone; returns whether there may be more."""
        with self._transaction() as db:
            row = db.execute("SELECT rowid, root, name, etag FROM stale LIMIT 1").fetchone()
            if row is None:
                return False
            stale, *version = row
            deleted = db.execute(
                "DELETE FROM pages WHERE rowid IN "
                "(SELECT rowid FROM pages WHERE root = ? AND name = ? AND etag = ? LIMIT ?)",
                (*version, CLEAN_ROWS),
            ).rowcount
            if deleted < CLEAN_ROWS:
                db.execute("DELETE FROM stale WHERE rowid = ?", (stale,))
        return True


def _insert(db: sqlite3.Connection, into: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert or replace rows, many by each statement: between two statements others get the interpreter."""
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        some = rows[start : start + ROWS_PER_STATEMENT]
        marks = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        db.execute(f"INSERT OR REPLACE INTO {into} VALUES {marks}", list(chain.from_iterable(some)))


@lru_cache(maxsize=256)
def _shape_text(shape: tuple[int, ...] | None) -> str | None:
    return json.dumps(shape) if shape is not None else None


@lru_cache(maxsize=256)
def _shape(text: str | None) -> tuple[int, ...] | None:
    return tuple(json.loads(text)) if text is not None else None


def _values(record: Record) -> tuple[Any, ...]:
    entry = record.entry
    described = (entry.size, entry.kind, entry.mtime, _shape_text(entry.shape), entry.dtype, entry.error)
    return (entry.generation, entry.etag, *record.key, record.content, *described)


def _record(row: tuple[Any, ...]) -> Record:
    _, generation, etag, ino, size, mtime_ns, ctime_ns, content, *described = row
    file_size, kind, mtime, shape, dtype, error = described
    entry = Entry(etag, generation, file_size, kind, mtime, _shape(shape), dtype, error)
    return Record(StatKey(ino, size, mtime_ns, ctime_ns), content, entry)
