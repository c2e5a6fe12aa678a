"""The cache of a subscriber that does not run, for others to read. Nothing is written there.

Its index is copied before it is opened: SQLite would write beside it, and could not read it at all where
that is not permitted and the subscriber did not stop cleanly.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from caterva2.cache.census import all_spans
from caterva2.cache.index import Index, Row
from caterva2.cache.pool import DATA_SUFFIX, MAP_SUFFIX
from caterva2.cache.recovery import mirror_name
from caterva2.cache.spans import joined
from caterva2.errors import ConfigError, Corrupt, StateInUse
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.state import StateLock

__all__ = ["FinishedCache", "cache_in"]

INDEX = "index.sqlite"
MIRRORS = "mirrors"
KNOWN = "subscriber.sqlite"
"""Beside the cache, where it was not copied without it: what the subscriber knew to be published."""

log = logging.getLogger(__name__)


def cache_in(directory: Path) -> Path | None:
    """Return the cache that a directory is, or has as the state directory of a subscriber; else None."""
    for place in (directory, directory / "cache"):
        if (place / INDEX).is_file() and (place / MIRRORS).is_dir():
            return place
    return None


class FinishedCache:
    """The versions in a cache that nobody changes. A context manager; methods may be called from any thread.

    Parameters
    ----------
    directory : Path
        As `cache_in` returns it. If it is in the state directory of a subscriber, that is locked.
    scratch : Path
        Where the copy of the index goes; made, and removed in the end.

    Attributes
    ----------
    mirrors : Path
        Where the files of the versions are.
    """

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.directory = directory
        self.mirrors = directory / MIRRORS
        self._scratch = scratch
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._index: Index
        self._known: dict[str, str] | None = None

    def __enter__(self) -> Self:
        """Open it.

        Raises
        ------
        StateInUse
            If a subscriber runs on it.
        ConfigError
            If it cannot be read, or was written by a newer release.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(StateLock(self.directory.parent, foreign=True))
                stack.callback(shutil.rmtree, self._scratch, ignore_errors=True)
                self._copy()
                self._known = self._read_known()
                self._index = Index(self._scratch / INDEX)
            except StateInUse:
                raise
            except (OSError, sqlite3.Error) as error:
                raise ConfigError(f"the cache {self.directory} cannot be read: {error}") from error
            stack.callback(self._index.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _copy(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700, parents=True)
        for file in (self.directory / INDEX, self.directory.parent / KNOWN):
            for suffix in ("", "-wal"):  # the latter is there if the subscriber was killed
                if (whole := Path(f"{file}{suffix}")).exists():
                    shutil.copyfile(whole, self._scratch / whole.name)

    def _read_known(self) -> dict[str, str] | None:
        """Return the etags of what was published, by path; None if that is not known."""
        file = self._scratch / KNOWN
        if not file.exists():
            return None
        try:
            with closing(sqlite3.connect(file)) as db:
                return dict(db.execute("SELECT root || '/' || name, etag FROM entries"))
        except sqlite3.Error as error:
            log.warning("what was published last is not known (%s): taking what is in the cache", error)
            return None

    def newest(self) -> dict[str, dict[str, Row]]:
        """Return the last version that is here of each dataset that was published, by root and name."""
        with self._lock:
            rows = self._index.rows()
        found: dict[str, dict[str, Row]] = {}
        for row in sorted(rows, key=lambda row: row.generation):
            if self._known is None or str(row.path) in self._known:  # else deleted, and not dropped yet
                found.setdefault(row.path.root, {})[row.path.name] = row
        return found

    def head(self, version: int) -> bytes | None:
        """Return the encoded head of a version, by its id."""
        with self._lock:
            return self._index.head(version)

    def page(self, version: int, number: int) -> bytes | None:
        """Return an encoded page of a version, by its id."""
        with self._lock:
            return self._index.page(version, number)

    @staticmethod
    def file_of(row: Row) -> str:
        """Return the name of the file that has the bytes of a version, below `mirrors`."""
        return mirror_name(row.id) + DATA_SUFFIX

    def manifest(self, row: Row) -> tuple[Head, list[Page]] | None:
        """Return the manifest of a version, if that was current and is said to be here in full; else None.

        Raises
        ------
        Corrupt
            If the manifest is damaged, or does not say what all bytes of the file are.
        OSError, sqlite3.Error
            If it cannot be read.
        """
        encoded = self.head(row.id)
        if encoded is None or (self._known is not None and self._known.get(str(row.path)) != row.etag):
            return None
        head = Head.decode(encoded)
        pages = []
        for number in range(head.npages):
            page = self.page(row.id, number)
            if page is None:
                return None
            pages.append(Page.decode(page, head, number))
        spans = all_spans(head, pages)
        if not _covers(spans.offsets, spans.stops, head.size):
            raise Corrupt("its manifest does not say what all of its bytes are")
        if not head.size:
            return head, pages
        present = self._presence(row, head.nextents)
        if present is None:
            return None
        here = present[spans.numbers] != 0
        return (head, pages) if _covers(spans.offsets[here], spans.stops[here], head.size) else None

    def _presence(self, row: Row, nextents: int) -> npt.NDArray[np.uint8] | None:
        try:
            data = (self.mirrors / (mirror_name(row.id) + MAP_SUFFIX)).read_bytes()
        except FileNotFoundError:
            return None
        return np.frombuffer(data, np.uint8) if len(data) == nextents else None


def _covers(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], size: int) -> bool:
    """Return whether byte ranges cover a file without a hole."""
    firsts, lasts = joined(starts, stops)
    return (firsts.tolist(), lasts.tolist()) == (([0], [size]) if size else ([], []))
