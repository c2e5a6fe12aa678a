"""Whether a version in the cache of a subscriber is, byte for byte, what its origin published."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import structlog

from caterva2.cache.finished import FinishedCache
from caterva2.cache.index import Row
from caterva2.errors import Corrupt
from caterva2.model.extents import Extent, digest
from caterva2.model.manifest import Head
from caterva2.publisher.store import PublisherStore, Record
from caterva2.publisher.versions import entry_of
from caterva2.source.files import LocalFile, StatKey, stat_key
from caterva2.source.original import LocalVersion

__all__ = ["MirrorCheck"]

NO_FILE = StatKey(0, 0, 0, 0)
"""Of a version without bytes, which needs no file."""

R = TypeVar("R")

log = structlog.get_logger(__name__)


class MirrorCheck:
    """Checks versions of a root. It belongs to one event loop.

    Parameters
    ----------
    root : str
    cache : FinishedCache
        Opened.
    store : PublisherStore
        Keeps what was checked: what has not changed since is not hashed again.
    executor : Executor
        Where bytes are hashed.
    """

    def __init__(self, root: str, cache: FinishedCache, store: PublisherStore, executor: Executor) -> None:
        self._root = root
        self._cache = cache
        self._store = store
        self._executor = executor
        self._known = store.records(root)

    async def of(self, row: Row) -> tuple[Head, LocalVersion] | None:
        """Return a version's head and its file, if all is right; None if not all of it is here.

        Raises
        ------
        Corrupt
            If some of it is wrong.
        OSError, sqlite3.Error
            If it cannot be read.
        """
        manifest = await self._thread(partial(self._cache.manifest, row))
        if manifest is None:
            return None
        head, pages = manifest
        if (head.path, head.etag, head.generation) != (row.path, row.etag, row.generation):
            raise Corrupt(f"the index has it as {row.etag}, its manifest as {head.etag}")
        directory, name = self._cache.mirrors, self._cache.file_of(row)
        key = await self._thread(lambda: stat_key((directory / name).stat())) if head.size else NO_FILE
        if key.size != head.size:
            raise Corrupt(f"its file has {key.size:,} bytes, not {head.size:,}")
        file = LocalVersion(head.etag, head.generation, str(directory), name, key)
        record = Record(key, None, entry_of(head))
        if head.size and self._known.get(row.path.name) != record:
            await self._thread(partial(_compare, file, head.fixed))
            for page in pages:  # one after the other: between two it can be cancelled
                await self._thread(partial(_compare, file, page.extents()))
            await self._thread(partial(self._note, row.path.name, record))
        return head, file

    def _note(self, name: str, record: Record) -> None:
        """Note that a file was checked. If that cannot be written, it is checked again at the next start."""
        self._known[name] = record
        try:
            self._store.save(self._root, [(name, record, None)])
        except sqlite3.Error as error:
            log.warning("check not noted", dataset=f"{self._root}/{name}", reason=str(error))

    async def _thread(self, function: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _compare(version: LocalVersion, extents: Iterable[Extent]) -> None:
    """Hash extents of a file.

    Raises
    ------
    Corrupt
        If one does not match its digest, or the file is being changed.
    OSError
    """
    with LocalFile(version.directory, version.file) as file:
        for extent in extents:
            if digest(file.read(extent.offset, extent.size)) != extent.digest:
                raise Corrupt(f"{extent.size} bytes at offset {extent.offset} do not match their digest")
        if file.key() != version.key:
            raise Corrupt("its file is being changed")
