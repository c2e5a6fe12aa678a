"""The publisher's roots, as its `caterva2.source.local.LocalSource` asks for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import structlog

from caterva2.errors import NotFound, Unavailable
from caterva2.model.path import DatasetPath
from caterva2.publisher.store import PublisherStore
from caterva2.publisher.watch import RootWatcher
from caterva2.source.local import Originals
from caterva2.source.original import LocalVersion

__all__ = ["OriginalsByRoot", "PublishedOriginals"]

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


class OriginalsByRoot:
    """`caterva2.source.local.Originals` that differ from root to root.

    Parameters
    ----------
    by_root : mapping of str to Originals
    """

    def __init__(self, by_root: Mapping[str, Originals]) -> None:
        self._by_root = by_root

    def _of(self, path: DatasetPath) -> Originals:
        try:
            return self._by_root[path.root]
        except KeyError:
            raise NotFound(path.root, f"there is no root {path.root!r}") from None

    def version(self, path: DatasetPath) -> LocalVersion:
        """Return the current version of a dataset; see `Originals.version`."""
        return self._of(path).version(path)

    def check(self, path: DatasetPath) -> None:
        """Raise `Unavailable` if its root cannot be reached; see `Originals.check`."""
        self._of(path).check(path)

    def suspect(self, path: DatasetPath) -> None:
        """Look at a dataset at once; see `Originals.suspect`."""
        self._of(path).suspect(path)

    def load_head(self, path: DatasetPath, etag: str) -> bytes | None:
        """Return an encoded head; see `Originals.load_head`."""
        return self._of(path).load_head(path, etag)

    def load_page(self, path: DatasetPath, etag: str, number: int) -> bytes | None:
        """Return an encoded page; see `Originals.load_page`."""
        return self._of(path).load_page(path, etag, number)

    def save_head(self, path: DatasetPath, etag: str, data: bytes) -> None:
        """Keep a head; see `Originals.save_head`."""
        self._of(path).save_head(path, etag, data)

    def save_page(self, path: DatasetPath, etag: str, number: int, data: bytes) -> None:
        """Keep a page; see `Originals.save_page`."""
        self._of(path).save_page(path, etag, number, data)
