"""The publisher's roots, as its `caterva2.source.local.LocalSource` asks for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import structlog

from caterva2.errors import NotFound, Unavailable
from caterva2.model.path import DatasetPath
from caterva2.publisher.store import PublisherStore
from caterva2.publisher.watch import RootWatcher
from caterva2.source.local import LocalVersion

__all__ = ["PublishedOriginals"]

log = structlog.get_logger(__name__)


class PublishedOriginals:
    """The `caterva2.source.local.Originals` of a publisher.

    Parameters
    ----------
    watchers : mapping of str to RootWatcher
        By root.
    store : PublisherStore
    """

    def __init__(self, watchers: Mapping[str, RootWatcher], store: PublisherStore) -> None:
        self._watchers = watchers
        self._store = store

    def version(self, path: DatasetPath) -> LocalVersion:
        """Return the current version of a dataset; see `Originals.version`."""
        watcher = self._watchers.get(path.root)
        if watcher is None:
            raise NotFound(path.root, f"there is no root {path.root!r}")
        record = watcher.records.get(path.name)
        if record is None:
            raise NotFound(str(path), f"there is no dataset {path.name!r} in root {path.root!r}")
        file = watcher.files.get(path.name, path.name)
        entry, directory = record.entry, watcher.directory.directory
        return LocalVersion(entry.etag, entry.generation, directory, file, record.key)

    def check(self, path: DatasetPath) -> None:
        """Raise `Unavailable` if the directory of a root is not there; see `Originals.check`."""
        watcher = self._watchers.get(path.root)
        if watcher is not None and watcher.offline.is_set():
            raise Unavailable(f"the directory of root {path.root!r} is not there now", retry_after_s=5.0)

    def suspect(self, path: DatasetPath) -> None:
        """Look at a dataset at once; see `Originals.suspect`."""
        watcher = self._watchers.get(path.root)
        if watcher is not None:
            watcher.look(path.name)

    def load_head(self, path: DatasetPath, etag: str) -> bytes | None:
        """Return an encoded head; see `Originals.load_head`."""
        return self._store.head(path.root, path.name, etag)

    def load_page(self, path: DatasetPath, etag: str, number: int) -> bytes | None:
        """Return an encoded page; see `Originals.load_page`."""
        return self._store.page(path.root, path.name, etag, number)

    def save_head(self, path: DatasetPath, etag: str, data: bytes) -> None:
        """Keep a head; see `Originals.save_head`. If it cannot be kept, it is made again when asked for."""
        try:
            self._store.save_head(path.root, path.name, etag, data)
        except sqlite3.Error as error:
            log.warning("head not kept", dataset=str(path), reason=str(error))

    def save_page(self, path: DatasetPath, etag: str, number: int, data: bytes) -> None:
        """Keep a page; see `Originals.save_page`. If it cannot be kept, it is made again when asked for."""
        try:
            self._store.save_page(path.root, path.name, etag, number, data)
        except sqlite3.Error as error:
            log.warning("page not kept", dataset=str(path), page=number, reason=str(error))
