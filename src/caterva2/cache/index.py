"""What the cache knows of versions, in SQLite: manifests, how much of each is here, when it was used.

Writes may come from any thread; reads belong to the event loop's thread and never wait for a write (WAL).
Manifests are kept as they are encoded: sealed, so that who decodes them finds a bit that flipped on disk.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from caterva2.database import connect, open_database
from caterva2.errors import ConfigError
from caterva2.model.path import DatasetPath, parse_path

__all__ = ["SCHEMA_VERSION", "Index", "Row", "RowState"]

SCHEMA_VERSION = 2

REMOVE_PAGES = 100
"""Pages that one call of `Index.remove` deletes at most."""

_SCHEMA = """
CREATE TABLE versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: the names of mirrors are made of it
    path TEXT NOT NULL,
    etag TEXT NOT NULL,
    generation INTEGER NOT NULL,
    size INTEGER NOT NULL,
    nextents INTEGER NOT NULL,
    head BLOB NOT NULL,
    cached_bytes INTEGER NOT NULL DEFAULT 0,
    complete INTEGER NOT NULL DEFAULT 0,
    dirty INTEGER NOT NULL DEFAULT 0,  -- cached_bytes is not to be believed
    last_used REAL NOT NULL,
    UNIQUE (path, etag)
);
CREATE TABLE pages (
    version INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    page BLOB NOT NULL,
    PRIMARY KEY (version, number)
) WITHOUT ROWID;
"""

_UPGRADES = {2: "ALTER TABLE versions DROP COLUMN digest; ALTER TABLE pages DROP COLUMN digest;"}

RowState = tuple[int, int, bool, float]
"""``(version, cached_bytes, complete, last_used)``, as in a `Row`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A version, as it was last written.

    Attributes
    ----------
    id : int
    path : DatasetPath
    etag : str
    generation, size, nextents : int
        As in the head.
    cached_bytes : int
        Bytes of extents present.
    complete : bool
        Whether all extents are present.
    dirty : bool
        The last process did not stop cleanly: `cached_bytes` and `complete` may be wrong.
    last_used : float
        Seconds since the epoch.
    """

    id: int
    path: DatasetPath
    etag: str
    generation: int
    size: int
    nextents: int
    cached_bytes: int
    complete: bool
    dirty: bool
    last_used: float


class Index:
    """The SQLite file of a cache.

    Parameters
    ----------
    file : Path
        Made if it is absent; one that is damaged is put aside and made anew.

    Raises
    ------
    ConfigError
        If it was written by a newer release.
    sqlite3.Error
        If it cannot be opened.
    """

    def __init__(self, file: Path, *, durable: bool = False) -> None:
        self._write_lock = threading.Lock()
        try:
            self._writer = open_database(file, _SCHEMA, SCHEMA_VERSION, _UPGRADES)
        except ConfigError as error:
            if isinstance(error.__cause__, sqlite3.Error):  # the disk, nothing that is configured
                raise error.__cause__ from None
            raise
        try:
            if durable:
                self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute("SELECT count(*) FROM versions").fetchone()
            self._reader = connect(file)
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._write_lock:
            self._reader.close()
            self._writer.close()

    # -- reading ---------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Return all versions."""
        cursor = self._reader.execute(
            "SELECT id, path, etag, generation, size, nextents, cached_bytes, complete, dirty, last_used "
            "FROM versions ORDER BY id"
        )
        return [
            Row(
                id=row[0],
                path=parse_path(row[1]),
                etag=row[2],
                generation=row[3],
                size=row[4],
                nextents=row[5],
                cached_bytes=row[6],
                complete=bool(row[7]),
                dirty=bool(row[8]),
                last_used=row[9],
            )
            for row in cursor
        ]

    def head(self, version: int) -> bytes | None:
        """Return the encoded head of a version; None if it is not here."""
        row = self._reader.execute("SELECT head FROM versions WHERE id = ?", (version,)).fetchone()
        return bytes(row[0]) if row else None

    def page(self, version: int, number: int) -> bytes | None:
        """Return an encoded page; None if it is not here."""
        row = self._reader.execute(
            "SELECT page FROM pages WHERE version = ? AND number = ?", (version, number)
        ).fetchone()
        return bytes(row[0]) if row else None

    def page_numbers(self, version: int) -> list[int]:
        """Return the numbers of the pages that are here, ascending."""
        cursor = self._reader.execute(
            "SELECT number FROM pages WHERE version = ? ORDER BY number", (version,)
        )
        return [number for (number,) in cursor]

    # -- writing ---------------------------------------------------------------------------------

    def add(
        self,
        path: DatasetPath,
        etag: str,
        *,
        generation: int,
        size: int,
        nextents: int,
        head: bytes,
        now: float,
    ) -> int:
        """Add a version, in place of one of the same name; returns its id.

        Raises
        ------
        sqlite3.Error
            If the disk is full or cannot be written; so do all that write.
        """
        with self._writing() as writer:
            writer.execute("DELETE FROM versions WHERE path = ? AND etag = ?", (str(path), etag))
            cursor = writer.execute(
                "INSERT INTO versions (path, etag, generation, size, nextents, head, last_used) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (str(path), etag, generation, size, nextents, head, now),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def add_pages(self, version: int, pages: Sequence[tuple[int, bytes]]) -> None:
        """Keep encoded pages, by number. A version that is gone meanwhile keeps none."""
        with self._writing() as writer:
            writer.executemany(
                "INSERT OR REPLACE INTO pages (version, number, page) "
                "SELECT id, ?, ? FROM versions WHERE id = ?",
                [(number, page, version) for number, page in pages],
            )

    def mark_dirty(self, version: int) -> None:
        """Note that what is here of a version is about to change, or has: only `settle` undoes it."""
        with self._writing() as writer:
            writer.execute("UPDATE versions SET dirty = 1 WHERE id = ?", (version,))

    def update(self, states: Iterable[RowState]) -> None:
        """Write the states of some versions; those that are dirty stay so."""
        self._update(states, "dirty")

    def settle(self, states: Iterable[RowState]) -> None:
        """Write the states of some versions, which are to be believed from now on."""
        self._update(states, "0")

    def _update(self, states: Iterable[RowState], dirty: str) -> None:
        with self._writing() as writer:
            writer.executemany(
                "UPDATE versions SET cached_bytes = ?2, complete = ?3, last_used = ?4, "
                f"dirty = {dirty} WHERE id = ?1",
                list(states),
            )

    def remove(self, versions: Iterable[int]) -> bool:
        """Forget versions and their pages, a bounded number at a time; returns whether there are more.

        What is to be written meanwhile waits for one call, not for all of it: a version can have thousands of
        pages.
        """
        room = REMOVE_PAGES
        with self._writing() as writer:
            for version in versions:
                room -= writer.execute(
                    "DELETE FROM pages WHERE version = ?1 AND number IN "
                    "(SELECT number FROM pages WHERE version = ?1 LIMIT ?2)",
                    (version, room),
                ).rowcount
                if room <= 0:
                    return True
                writer.execute("DELETE FROM versions WHERE id = ?", (version,))
        return False

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
