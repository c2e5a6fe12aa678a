"""What a subscriber must know again after a restart: the catalogue as last seen, the follows and the pins."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from caterva2.database import open_database
from caterva2.model.catalogue import Catalogue, Entry, Event
from caterva2.model.path import parse_path

__all__ = ["SubscriberStore"]

SCHEMA_VERSION = 3

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

_UPGRADES = {2: _PINS, 3: _MODES}


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
        self._db = open_database(file, _SCHEMA + _PINS + _MODES, SCHEMA_VERSION, _UPGRADES)
        self._catalogue: Catalogue | None = None

    def close(self) -> None:
        """Write what is open and close the database."""
        self._commit()
        self._db.close()

    # -- the catalogue ---------------------------------------------------------------------------

    def load(self, catalogue: Catalogue) -> None:
        """Fill a catalogue with what was last seen, unconfirmed."""
        for name, url, title, instance, confirmed_at in self._db.execute("SELECT * FROM roots"):
            catalogue.set_root(name, url=url, title=title, instance=instance)
            catalogue.doubt(name, confirmed_at)
        for root, name, etag, generation, size, kind, mtime, shape, dtype, error in self._db.execute(
            "SELECT * FROM entries"
        ):
            if root not in catalogue.roots:  # it ended before it was written who serves it
                catalogue.set_root(root)
                catalogue.doubt(root)
            extents = tuple(json.loads(shape)) if shape is not None else None
            catalogue.apply(root, name, Entry(etag, generation, size, kind, mtime, extents, dtype, error))

    def keep(self, catalogue: Catalogue) -> None:
        """Write each difference of a catalogue from now on."""
        self._catalogue = catalogue
        catalogue.listen(self._on_event)

    def write_roots(self) -> None:
        """Write who serves which root and when each was confirmed; to be called now and then."""
        if self._catalogue is None:
            return
        self._begin()
        self._db.execute("DELETE FROM roots")
        self._db.executemany(
            "INSERT INTO roots VALUES (?, ?, ?, ?, ?)",
            [(r.name, r.url, r.title, r.instance, r.confirmed_at) for r in self._catalogue.roots.values()],
        )

    def _on_event(self, event: Event, entry: Entry | None) -> None:
        if event.kind in ("online", "offline"):
            self.write_roots()
            return
        path = parse_path(event.path)
        self._begin()
        if entry is None:
            self._db.execute("DELETE FROM entries WHERE root = ? AND name = ?", (path.root, path.name))
            return
        shape = json.dumps(entry.shape) if entry.shape is not None else None
        row = (path.root, path.name, entry.etag, entry.generation, entry.size, entry.kind, entry.mtime)
        self._db.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, shape, entry.dtype, entry.error),
        )

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")

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
