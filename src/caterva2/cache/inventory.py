"""What is here: the versions in memory, their rows in the index, their mirrors, and what all of it takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from caterva2.cache.disk import Disk
from caterva2.cache.index import Index
from caterva2.cache.mirror import MAX_EXTENTS, Mirror
from caterva2.cache.pool import MirrorPool
from caterva2.cache.recovery import mirror_name, open_index, row_state
from caterva2.cache.version import CacheStats, Version
from caterva2.errors import ConfigError
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath

__all__ = ["Inventory"]

FLUSH_S = 10.0
"""How often what was used when is written to the index, in seconds."""

RETRY_S = 10.0
"""A directory that could not be opened is tried again after so many seconds."""


class Inventory:
    """The versions of a directory. Belongs to one event loop.

    Parameters
    ----------
    directory : Path
    durable : bool
        Whether what is kept is to survive the machine, not just this process.
    disk : Disk
    stats : CacheStats
        Its `versions` and `cached_bytes` are kept.

    Attributes
    ----------
    index : Index or None
        None unless open, and while the directory cannot be used.
    changes : int
        Grows whenever there may be more to evict than before.
    """

    def __init__(self, directory: Path, *, durable: bool, disk: Disk, stats: CacheStats) -> None:
        self.index: Index | None = None
        self.changes = 0
        self._directory = directory
        self._durable = durable
        self._disk = disk
        self._stats = stats
        self._pool = MirrorPool(directory / "mirrors", durable=durable)
        self._versions: dict[str, dict[str, Version]] = {}  # by path, by etag
        self._adding = asyncio.Lock()
        self._touched: set[Version] = set()
        self._opened_at = self._flushed_at = 0.0

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the directory: drop what the index does not know, count again what was not closed cleanly.

        Where that fails nothing is here, and nothing is kept; it is tried again when something could be.

        Raises
        ------
        ConfigError
            If it was written by a newer release.
        """
        self._opened_at = self._flushed_at = time.monotonic()
        with self._disk.health.guard():
            self.index, versions = await self._disk.run(self._open)
            for version in versions:
                self._versions.setdefault(str(version.path), {})[version.etag] = version
                self._stats.versions += 1
                self._stats.cached_bytes += version.cached_bytes
            self._disk.health.works()

    def _open(self) -> tuple[Index, list[Version]]:
        self._pool.directory.mkdir(parents=True, exist_ok=True)
        return open_index(self._directory / "index.sqlite", self._pool, durable=self._durable)

    async def _open_again(self) -> None:
        if self.index is None and time.monotonic() - self._opened_at > RETRY_S:
            try:
                await self.open()
            except ConfigError as error:
                self._disk.health.failed(error)

    async def close(self) -> None:
        """Write what was used when, and close all files. Nobody may be working on the disk any more."""
        if self.index is not None:
            await self._disk.run(self._close, self.index, self.everything())
            self.index = None

    def _close(self, index: Index, versions: Sequence[Version]) -> None:
        with self._disk.health.guard():
            index.settle(map(row_state, versions))
        self._pool.close()
        index.close()

    # -- finding ---------------------------------------------------------------------------------

    def find(self, path: DatasetPath, etag: str) -> Version | None:
        """Return a version that is here."""
        return self._versions.get(str(path), {}).get(etag)

    def everything(self) -> list[Version]:
        """Return all versions that are here."""
        return [version for versions in self._versions.values() for version in versions.values()]

    def all_of(self, path: DatasetPath) -> list[Version]:
        """Return all versions of a dataset that are here."""
        return list(self._versions.get(str(path), {}).values())

    @property
    def open_mirrors(self) -> int:
        """How many have their files open."""
        return len(self._pool)

    # -- coming ----------------------------------------------------------------------------------

    async def add(self, head: Head, encoded: bytes) -> Version:
        """Return the version of a head, made if it is not here."""
        async with self._adding:
            await self._open_again()
            if found := self.find(head.path, head.etag):
                return found
            version = Version(
                0, head.path, head.etag, head.generation, head.size, None, last_used=time.time()
            )
            version.complete = not head.size
            if head.nextents > MAX_EXTENTS or self.index is None:
                return version
            with self._disk.health.guard():
                version.id = await self._disk.run(_enter, self.index, head, encoded, version.last_used)
            if version.id:
                version.mirror = Mirror(self._pool, mirror_name(version.id), head.size, head.nextents)
                self._versions.setdefault(str(head.path), {})[head.etag] = version
                self._stats.versions += 1
            return version

    # -- use -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def using(self, version: Version, *, whole: bool = False) -> Iterator[None]:
        """Keep the files of a version while inside, if `whole` all that is in them, and note its use."""
        version.last_used = time.time()
        self._touched.add(version)
        with self.holding(version, whole=whole):
            yield
        if not version.doomed:
            self._flush_sometimes()

    def used(self, version: Version) -> None:
        """Note the use of a version by who is done with it already."""
        version.last_used = time.time()
        self._touched.add(version)
        self._flush_sometimes()

    @contextlib.contextmanager
    def holding(self, version: Version, *, whole: bool = False) -> Iterator[None]:
        """Do as `using`, without counting that as use."""
        version.users += 1
        version.entered += 1
        version.held += whole
        try:
            yield
        finally:
            version.users -= 1
            version.held -= whole
            self.changes += whole
            if version.doomed and not version.users:
                self._delete([version])

    def _flush_sometimes(self) -> None:
        now = time.monotonic()
        if now - self._flushed_at <= FLUSH_S:
            return
        self._flushed_at = now
        touched, self._touched = self._touched, set()
        if self.index is not None:
            self._disk.later(self.index.update, [row_state(version) for version in touched if version.id])

    # -- counts ----------------------------------------------------------------------------------

    def count(self, version: Version, nbytes: int) -> None:
        """Note that so many bytes more of a version are here, or so many less; see `mark_dirty`."""
        version.cached_bytes += nbytes
        self._stats.cached_bytes += nbytes
        self._touched.add(version)
        if nbytes > 0:
            self.changes += 1
        elif nbytes < 0:
            version.complete = False

    async def mark_dirty(self, version: Version) -> None:
        """Let the index know that what it says of a version changes, until all of that is settled.

        Raises
        ------
        sqlite3.Error
        """
        if not version.dirty and self.index is not None:
            await self._disk.run(self.index.mark_dirty, version.id)
            version.dirty = True

    # -- going -----------------------------------------------------------------------------------

    def remove(self, versions: Sequence[Version], *, forget: bool) -> None:
        """Remove versions, those with readers inside once they have left.

        Parameters
        ----------
        versions : sequence of Version
        forget : bool
            Nobody can enter the ones with readers inside any more; they are made anew for who asks next.
        """
        for version in versions:
            version.doomed = True
            if version.users and forget:
                self._forget(version)
        self._delete([version for version in versions if not version.users])

    def _delete(self, versions: Sequence[Version]) -> None:
        self._strike(versions)
        if versions:
            self._disk.later(self._delete_files, list(versions))

    async def evict(self, versions: Sequence[Version]) -> None:
        """Remove versions that nobody is inside of, and wait until their files are gone.

        Raises
        ------
        sqlite3.Error
        """
        self._strike(versions)
        if versions:
            await self._disk.run(self._delete_files, versions)

    def _strike(self, versions: Sequence[Version]) -> None:
        """Let nothing be known of versions whose files are about to be deleted."""
        for version in versions:
            version.doomed = True
            self._forget(version)
            self._touched.discard(version)
            self._stats.cached_bytes -= version.cached_bytes
            version.cached_bytes = 0
            self.changes += 1

    def _forget(self, version: Version) -> None:
        etags = self._versions.get(str(version.path), {})
        if etags.get(version.etag) is version:
            del etags[version.etag]
            self._stats.versions -= 1
            if not etags:
                del self._versions[str(version.path)]

    def _delete_files(self, versions: Sequence[Version]) -> None:
        for version in versions:
            if version.mirror is not None:
                version.mirror.remove()
        assert self.index is not None
        ids = [version.id for version in versions]
        while self.index.remove(ids):
            pass


def _enter(index: Index, head: Head, encoded: bytes, now: float) -> int:
    return index.add(
        head.path,
        head.etag,
        generation=head.generation,
        size=head.size,
        nextents=head.nextents,
        head=encoded,
        now=now,
    )
