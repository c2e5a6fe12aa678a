"""What a subscriber must know again after a restart: its name, the catalogue as last seen, follows, pins."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import Any, cast

from caterva2.bus.view import Position
from caterva2.database import open_database
from caterva2.model.catalogue import Catalogue, Event
from caterva2.model.path import Kind
from caterva2.model.root import DELETED_KEPT, Entry

__all__ = ["SubscriberStore"]

SCHEMA_VERSION = 6

_SCHEMA = """
CREATE TABLE roots (
    name TEXT PRIMARY KEY, url TEXT NOT NULL, title TEXT NOT NULL, instance TEXT NOT NULL, confirmed_at REAL
) WITHOUT ROWID;
CREATE TABLE entries (
    root TEXT NOT NULL, name TEXT NOT NULL, etag TEXT NOT NULL, generation INTEGER NOT NULL,
    size INTEGER NOT NULL, kind TEXT NOT NULL, mtime REAL NOT NULL, shape TEXT, dtype TEXT, error TEXT,
    PRIMARY KEY (root, name)
) WITHOUT ROWID;
CREATE TABLE follows (pattern TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
"""

_PINS = "CREATE TABLE pins (pattern TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;"

_MODES = "ALTER TABLE follows ADD COLUMN mode TEXT NOT NULL DEFAULT 'cached';"

_RESETS = """
ALTER TABLE roots ADD COLUMN reset_at INTEGER NOT NULL DEFAULT 0;
CREATE TABLE deleted (
    root TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (root, name)
) WITHOUT ROWID;
CREATE INDEX deletions ON deleted (generation);
"""

_POSITION = """
CREATE TABLE position (
    epoch TEXT NOT NULL, revision INTEGER NOT NULL, heard_at REAL NOT NULL, told TEXT NOT NULL
);
"""

_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;"

_TIERS = """
ALTER TABLE roots ADD COLUMN origin TEXT NOT NULL DEFAULT '';
ALTER TABLE roots ADD COLUMN via TEXT NOT NULL DEFAULT '[]';
"""

_UPGRADES = {2: _PINS, 3: _MODES, 4: _RESETS, 5: _POSITION, 6: _META + _TIERS}


class SubscriberStore:
    """An SQLite database in the state directory. It belongs to one event loop.

    One that is damaged is put aside and made anew: the catalogue comes back from the bus, the follows do not.

    Differences of the catalogue are written as they are seen, those of one turn of the loop in one
    transaction: a version that was ever served is still known after ``kill -9``, so nobody goes backwards.

    Raises
    ------
    ConfigError
        If the database was written by a newer release, or cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        schema = _SCHEMA + "".join(_UPGRADES.values())
        self._db = open_database(file, schema, SCHEMA_VERSION, _UPGRADES)
        self._catalogue: Catalogue | None = None
        self._position: Callable[[], Position | None] = lambda: None
        self._commit_soon: asyncio.Handle | None = None
        self._changed: dict[tuple[str, str], Entry | int] = {}  # an entry, or the generation that was deleted

    def close(self) -> None:
        """Write what is open and close the database."""
        if self._commit_soon is not None:
            self._commit_soon.cancel()
        self._commit()
        self._db.close()

    def instance(self) -> str:
        """Return the random name of this state directory; the same after a restart."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('instance', ?)", (secrets.token_hex(16),))
        (instance,) = self._db.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        return str(instance)

    # -- the catalogue ---------------------------------------------------------------------------

    def load(self, catalogue: Catalogue) -> None:
        """Fill a catalogue with what was last seen, unconfirmed."""
        for row in self._db.execute("SELECT * FROM roots"):
            name, url, title, instance, confirmed_at, reset_at, origin, via = row
            tiers = tuple(json.loads(via))
            catalogue.set_root(name, url=url, title=title, instance=instance, origin=origin, via=tiers)
            catalogue.reset(name, reset_at)
            catalogue.doubt(name, confirmed_at)
        rows = self._db.execute("SELECT * FROM entries ORDER BY root, name")
        for root, of_root in groupby(rows, key=itemgetter(0)):
            if root not in catalogue.roots:  # it ended before it was written who serves it
                catalogue.set_root(root)
                catalogue.doubt(root)
            catalogue.fill(root, _entries(of_root))
        self._db.execute(
            "DELETE FROM deleted WHERE generation <= "
            "(SELECT generation FROM deleted ORDER BY generation DESC LIMIT 1 OFFSET ?)",
            (DELETED_KEPT,),
        )
        for root, name, generation in self._db.execute("SELECT * FROM deleted ORDER BY generation"):
            if root in catalogue.roots and name not in catalogue.root(root).entries:
                catalogue.root(root).deleted[name] = generation

    def position(self) -> Position | None:
        """Return how far the catalogue was when it was last written; None if that is not known."""
        found = self._db.execute("SELECT * FROM position").fetchone()
        if found is None:
            return None
        epoch, revision, heard_at, told = found
        return Position(epoch, revision, heard_at, tuple((number, at) for number, at in json.loads(told)))

    def keep(self, catalogue: Catalogue, position: Callable[[], Position | None] = lambda: None) -> None:
        """Write each difference of a catalogue from now on.

        Parameters
        ----------
        catalogue : Catalogue
        position : callable, optional
            Returns how far the catalogue is.
        """
        self._catalogue = catalogue
        self._position = position
        catalogue.listen(self._on_event)

    def write_roots(self) -> None:
        """Write who serves which root, when each was confirmed, and how far all is.

        To be called now and then.
        """
        if self._catalogue is None:
            return
        self._begin()
        self._db.execute("DELETE FROM roots")
        self._db.executemany(
            "INSERT INTO roots VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (r.name, r.url, r.title, r.instance, r.confirmed_at, r.reset_at, r.origin, json.dumps(r.via))
                for r in self._catalogue.roots.values()
            ],
        )
        position = self._position()
        if position is not None:
            # in one transaction with what was seen up to there; an older one does no harm, a later one would
            self._db.execute("DELETE FROM position")
            self._db.execute(
                "INSERT INTO position VALUES (?, ?, ?, ?)", (*position[:3], json.dumps(position.told))
            )

    def _on_event(self, event: Event, entry: Entry | None) -> None:
        if event.kind in ("online", "offline", "reset"):
            self.write_roots()
            if event.kind == "reset":
                self._write_changes()
                self._db.execute("DELETE FROM deleted WHERE root = ?", (event.path,))
            return
        self._begin()
        root, _, name = event.path.partition("/")
        if entry is None:
            assert self._catalogue is not None
            self._changed[root, name] = self._catalogue.root(root).deleted.get(name, 0)
        else:
            self._changed[root, name] = entry

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
            self._commit_soon = asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._write_changes()
            self._db.execute("COMMIT")

    def _write_changes(self) -> None:
        changed, self._changed = self._changed, {}
        if self._position() is None:
            self._db.execute("DELETE FROM position")
        deleted = [(*key, entry) for key, entry in changed.items() if isinstance(entry, int)]
        if deleted:
            gone = [row[:2] for row in deleted]
            self._db.executemany("DELETE FROM entries WHERE root = ? AND name = ?", gone)
            # one that comes back has an entry, which counts
            self._db.executemany("INSERT OR REPLACE INTO deleted VALUES (?, ?, ?)", deleted)
        self._db.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(key, entry) for key, entry in changed.items() if not isinstance(entry, int)],
        )

    # -- follows ---------------------------------------------------------------------------------

    def follows(self) -> dict[str, str]:
        """Return the patterns that are followed, sorted, and how."""
        return dict(self._db.execute("SELECT pattern, mode FROM follows ORDER BY pattern"))

    def follow(self, pattern: str, mode: str) -> None:
        """Add a pattern, or change how it is followed."""
        self._db.execute(
            "INSERT INTO follows (pattern, since, mode) VALUES (?1, ?2, ?3) "
            "ON CONFLICT (pattern) DO UPDATE SET mode = ?3",
            (pattern, time.time(), mode),
        )

    def unfollow(self, pattern: str) -> bool:
        """Remove a pattern; returns whether it was there."""
        return self._db.execute("DELETE FROM follows WHERE pattern = ?", (pattern,)).rowcount > 0

    # -- pins ------------------------------------------------------------------------------------

    def pins(self) -> list[str]:
        """Return the patterns that are pinned, sorted."""
        return [pattern for (pattern,) in self._db.execute("SELECT pattern FROM pins ORDER BY pattern")]

    def pin(self, pattern: str) -> None:
        """Add a pattern; one that is there already stays."""
        self._db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", (pattern, time.time()))

    def unpin(self, pattern: str) -> bool:
        """Remove a pattern; returns whether it was there."""
        return self._db.execute("DELETE FROM pins WHERE pattern = ?", (pattern,)).rowcount > 0


def _entries(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, Entry]]:  # Any: of each column its own
    shapes: dict[str | None, tuple[int, ...] | None] = {None: None}
    for _, name, etag, generation, size, kind, mtime, shape, dtype, error in rows:
        if shape not in shapes:
            shapes[shape] = tuple(json.loads(shape))
        described = (cast(Kind, intern(kind)), mtime, shapes[shape], dtype and intern(dtype), error)
        yield name, Entry(etag, generation, size, *described)


def _row(key: tuple[str, str], entry: Entry) -> tuple[str | int | float | None, ...]:
    shape = None if entry.shape is None else str(list(entry.shape))  # is JSON, in a fifth of the time
    described = (entry.etag, entry.generation, entry.size, entry.kind, entry.mtime, shape)
    return (*key, *described, entry.dtype, entry.error)
