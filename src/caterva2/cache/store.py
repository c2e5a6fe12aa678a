"""The versions on disk: their mirrors, the index of them, the quota.

Belongs to one event loop; disk work goes to the executor. Failures of the disk are counted and logged once,
and end here: what cannot be read counts as absent, what cannot be written is not kept.

Architecture invariant: nothing here asks anybody for anything; see `caterva2.cache.cached` for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from caterva2.cache.eviction import PINNED, Choice, Clock, Room, choose, evict_extents
from caterva2.cache.holes import can_punch
from caterva2.cache.index import Index
from caterva2.cache.lru import BytesLru
from caterva2.cache.mirror import MAX_EXTENTS, Mirror
from caterva2.cache.pool import MirrorPool
from caterva2.cache.recovery import is_complete, mirror_name, recover, row_state
from caterva2.cache.version import CacheStats, Version
from caterva2.errors import Corrupt
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head, Page
from caterva2.model.path import DatasetPath

__all__ = ["Store"]

HEADS_BYTES = 32 * 1024 * 1024
PAGES_BYTES = 128 * 1024 * 1024
"""Decoded manifests held in memory, in bytes."""

INLINE_BYTES = 256 * 1024
"""So much is read at once on the loop: handing it to a thread would take longer."""

FUTILE_S = 1.0
"""When too little could be evicted, it is tried again after so many seconds, or when more could be."""

RECOVERED_S = 5.0
"""So many seconds after a write that succeeded, without a failure, a disk that failed counts as sound."""

FLUSH_S = 10.0
"""How often what was used when is written to the index, in seconds."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Store:
    """The versions in a directory.

    Parameters
    ----------
    directory : Path
        Belongs to one process at a time.
    quota_bytes : int or None
        Most that the mirrors may take in all.
    min_free_bytes : int
        Least that stays free on the disk.
    durable : bool
        Whether what is kept is to survive the machine, not just this process.
    rank : callable
        Returns the rank of a dataset; see `caterva2.cache.eviction`. Asked only while evicting.
    executor : Executor
    stats : CacheStats
        Is added to.
    """

    def __init__(
        self,
        directory: Path,
        *,
        quota_bytes: int | None,
        min_free_bytes: int,
        durable: bool,
        rank: Callable[[DatasetPath], int],
        executor: Executor,
        stats: CacheStats,
    ) -> None:
        self._directory = directory
        self._durable = durable
        self._room = Room(directory, quota_bytes, min_free_bytes)
        self._rank = rank
        self._clock = Clock()
        self._by_extent = False
        self._evicting = asyncio.Lock()
        self._futile_until = 0.0
        self._recovery: asyncio.TimerHandle | None = None
        self._executor = executor
        self.stats = stats
        self._pool = MirrorPool(directory / "mirrors", durable=durable)
        self._index: Index | None = None
        self._versions: dict[str, dict[str, Version]] = {}  # by path, by etag
        self._heads: BytesLru[tuple[str, str], Head] = BytesLru(HEADS_BYTES)
        self._pages: BytesLru[tuple[Hashable, int], Page] = BytesLru(PAGES_BYTES)
        self._adding = asyncio.Lock()
        self._touched: set[Version] = set()
        self._flushed_at = 0.0
        self._jobs: set[asyncio.Future[Any]] = set()

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the directory: drop what the index does not know, count again what was not closed cleanly.

        Raises
        ------
        OSError, ConfigError, sqlite3.Error
            If the directory cannot be used at all.
        """
        for version in await self._run(self._open):
            self._versions.setdefault(str(version.path), {})[version.etag] = version
            self.stats.versions += 1
            self.stats.cached_bytes += version.cached_bytes
        self._flushed_at = time.monotonic()

    def _open(self) -> list[Version]:
        self._pool.directory.mkdir(parents=True, exist_ok=True)
        self._by_extent = can_punch(self._pool.directory)
        self._index = Index(self._directory / "index.sqlite", durable=self._durable)
        return recover(self._index, self._pool)

    async def close(self) -> None:
        """Finish what is under way, write what was used when, and close all files."""
        if self._recovery is not None:
            self._recovery.cancel()
        while self._jobs:
            await asyncio.gather(*self._jobs, return_exceptions=True)
        if self._index is not None:
            await self._run(self._close, self._index, self.everything())
            self._index = None

    def _close(self, index: Index, versions: Sequence[Version]) -> None:
        for version in versions:
            version.dirty = False
        with self._disk():
            index.update(map(row_state, versions))
        self._pool.close()
        index.close()

    # -- versions --------------------------------------------------------------------------------

    def find(self, path: DatasetPath, etag: str) -> Version | None:
        """Return a version that is here."""
        return self._versions.get(str(path), {}).get(etag)

    def everything(self) -> list[Version]:
        """Return all versions that are here."""
        return [version for versions in self._versions.values() for version in versions.values()]

    def all_of(self, path: DatasetPath) -> list[Version]:
        """Return all versions of a dataset that are here."""
        return list(self._versions.get(str(path), {}).values())

    async def add(self, head: Head) -> Version:
        """Return the version of a head, made if it is not here."""
        async with self._adding:
            if found := self.find(head.path, head.etag):
                return found
            version = Version(
                0, head.path, head.etag, head.generation, head.size, None, last_used=time.time()
            )
            encoded = head.encode()
            version.complete = not head.size
            self._heads.put(version.key, head, len(encoded))
            if head.nextents > MAX_EXTENTS:
                return version
            with self._disk():
                version.id = await self._run(self._enter, head, encoded, version.last_used)
            if version.id:
                version.mirror = Mirror(self._pool, mirror_name(version.id), head.size, head.nextents)
                self._versions.setdefault(str(head.path), {})[head.etag] = version
                self.stats.versions += 1
            return version

    def _enter(self, head: Head, encoded: bytes, now: float) -> int:
        assert self._index is not None
        return self._index.add(
            head.path,
            head.etag,
            generation=head.generation,
            size=head.size,
            nextents=head.nextents,
            head=encoded,
            now=now,
        )

    @contextlib.contextmanager
    def using(self, version: Version, *, whole: bool = False) -> Iterator[None]:
        """Keep the files of a version while inside, if `whole` all that is in them, and note its use."""
        version.last_used = time.time()
        self._touched.add(version)
        with self.holding(version, whole=whole):
            yield
        if not version.doomed and time.monotonic() - self._flushed_at > FLUSH_S:
            self._flush()

    @contextlib.contextmanager
    def holding(self, version: Version, *, whole: bool = False) -> Iterator[None]:
        """Do as `using`, without counting that as use."""
        version.users += 1
        version.held += whole
        try:
            yield
        finally:
            version.users -= 1
            version.held -= whole
            if whole:
                self._futile_until = 0.0
            if version.doomed and not version.users:
                self._delete([version])

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

    def _forget(self, version: Version) -> None:
        etags = self._versions.get(str(version.path), {})
        if etags.get(version.etag) is version:
            del etags[version.etag]
            self.stats.versions -= 1
            if not etags:
                del self._versions[str(version.path)]

    def _delete(self, versions: Sequence[Version]) -> None:
        for version in versions:
            self._strike(version)
        if versions:
            self._later(self._delete_files, list(versions))

    def _strike(self, version: Version) -> None:
        """Let nothing be known of a version whose files are about to be deleted."""
        version.doomed = True
        self._forget(version)
        self._touched.discard(version)
        self.stats.cached_bytes -= version.cached_bytes
        version.cached_bytes = 0
        self._futile_until = 0.0

    def _delete_files(self, versions: Sequence[Version]) -> None:
        for version in versions:
            if version.mirror is not None:
                version.mirror.remove()
        assert self._index is not None
        self._index.remove(version.id for version in versions)

    # -- manifests -------------------------------------------------------------------------------

    def head(self, version: Version) -> Head | None:
        """Return the head of a version; None if it was damaged on disk."""
        head = self._heads.get(version.key)
        if head is None and self._index is not None:
            with self._disk(), contextlib.suppress(Corrupt):
                encoded = self._index.head(version.id)
                if encoded is not None:
                    head = Head.decode(encoded)
                    self._heads.put(version.key, head, len(encoded))
        return head

    def page(self, version: Version, head: Head, number: int) -> Page | None:
        """Return a page of a version; None if it is not here, or was damaged on disk."""
        page = self._pages.get((version.entry, number))
        if page is None and version.id and self._index is not None:
            with self._disk(), contextlib.suppress(Corrupt):
                encoded = self._index.page(version.id, number)
                if encoded is not None:
                    page = Page.decode(encoded, head)
                    self._pages.put((version.entry, number), page, len(encoded))
        return page

    async def add_pages(self, version: Version, pages: Sequence[Page]) -> None:
        """Keep pages of a version."""
        encoded = [(page.number, page.encode()) for page in pages]
        for page, (number, blob) in zip(pages, encoded, strict=True):
            self._pages.put((version.entry, number), page, len(blob))
        if version.id and self._index is not None:
            with self._disk():
                await self._run(self._index.add_pages, version.id, encoded)

    # -- extents ---------------------------------------------------------------------------------

    async def read(self, version: Version, extents: Sequence[Extent]) -> list[bytes | None]:
        """Return the bytes of extents; None for those that are absent or were found to be wrong."""
        mirror = version.mirror
        if not self._clock.touch(version, extents):
            for other in self.everything():
                other.ticks = None
        if mirror is None or not version.cached_bytes:
            return [None] * len(extents)
        try:
            if sum(extent.size for extent in extents) <= INLINE_BYTES:
                return self._judged(version, *mirror.read(extents))
            return await self._whole(self._read(version, mirror, extents))
        except OSError as error:
            self._disk_failed(error)
            return [None] * len(extents)

    async def _read(self, version: Version, mirror: Mirror, extents: Sequence[Extent]) -> list[bytes | None]:
        with self.using(version):
            return self._judged(version, *await self._run(mirror.read, extents))

    def _judged(
        self, version: Version, pieces: list[bytes | None], rejected: list[Extent], verified: int
    ) -> list[bytes | None]:
        self.stats.verified += verified
        for extent in rejected:
            self.stats.rejected += 1
            self._count(version, -extent.size)
            log.warning(
                "%d bytes of the mirror of %s at offset %d do not match their digest: fetching them again",
                extent.size,
                version.path,
                extent.offset,
            )
        return pieces

    def unverified(self, version: Version, extents: Sequence[Extent]) -> list[Extent]:
        """Return the extents that are absent, or have not been checked since the start."""
        if version.mirror is not None and version.cached_bytes:
            with self._disk():
                return version.mirror.unverified(extents)
        return list(extents)

    def numbers(self, version: Version) -> npt.NDArray[np.int64]:
        """Return the numbers of the extents present, ascending; none if the disk cannot be read."""
        if version.mirror is not None:
            with self._disk():
                return version.mirror.numbers()
        return np.empty(0, np.int64)

    async def check(self, version: Version, extents: Sequence[Extent]) -> list[Extent] | None:
        """Hash extents that are present, also those that were checked since the start.

        Returns
        -------
        list of Extent or None
            Those that were wrong, which are absent now; None if the disk could not be read.
        """
        if version.mirror is None:
            return []
        return await self._whole(self._check(version, version.mirror, extents))

    async def _check(
        self, version: Version, mirror: Mirror, extents: Sequence[Extent]
    ) -> list[Extent] | None:
        with self.holding(version), self._disk():
            pieces, rejected, verified = await self._run(mirror.check, extents)
            self._judged(version, pieces, rejected, verified)
            return rejected
        return None

    async def forget_extents(self, version: Version, numbers: npt.NDArray[np.int64]) -> None:
        """Make extents absent of which no digest is known; `correct` sets the count right."""
        if version.mirror is not None and len(numbers):
            with self.holding(version), self._disk():
                await self._run(version.mirror.clear, numbers)

    async def correct(self, version: Version, nbytes: int) -> None:
        """Add to the bytes that a version is said to have here."""
        self._count(version, nbytes)
        with self._disk():
            await self._complete(version)

    async def write(self, version: Version, items: Sequence[tuple[Extent, bytes]]) -> bool:
        """Keep bytes that have been checked; returns whether they were kept."""
        if version.mirror is not None:
            return await self._whole(self._write(version, version.mirror, items))
        self.stats.passed_through += len(items)
        return False

    async def _write(self, version: Version, mirror: Mirror, items: Sequence[tuple[Extent, bytes]]) -> bool:
        nbytes = sum(extent.size for extent, _ in items)
        with self.holding(version):
            if await self._reserve(nbytes):
                try:
                    with self.using(version), self._disk():
                        await self._mark_dirty(version)
                        new, error = await self._run(mirror.write, items)
                        self._count(version, kept := sum(extent.size for extent in new))
                        self._room.written(kept)
                        if error is not None:
                            raise error
                        self._disk_works()
                        await self._complete(version)
                        return True
                finally:
                    self._room.reserved_bytes -= nbytes
        self.stats.passed_through += len(items)
        return False

    async def _mark_dirty(self, version: Version) -> None:
        if not version.dirty and self._index is not None:
            await self._run(self._index.mark_dirty, version.id)
            version.dirty = True

    async def _complete(self, version: Version) -> None:
        """Find out whether a version is all here, once enough bytes are."""
        if version.complete or version.cached_bytes < version.size or self._index is None:
            return
        complete = await self._run(is_complete, self._index, version)
        version.complete = complete and version.cached_bytes >= version.size

    def _count(self, version: Version, nbytes: int) -> None:
        version.cached_bytes += nbytes
        self.stats.cached_bytes += nbytes
        self._touched.add(version)
        if nbytes > 0:
            self._futile_until = 0.0
        elif nbytes < 0:
            version.complete = False

    # -- eviction --------------------------------------------------------------------------------

    async def _reserve(self, nbytes: int) -> bool:
        """Reserve room for bytes to be written, evicting what is needed; returns whether there is room."""
        if self._room.excess(self.stats.cached_bytes, nbytes) and not await self._make_room(nbytes):
            return False
        self._room.reserved_bytes += nbytes
        return True

    async def _make_room(self, nbytes: int) -> bool:
        if self._room.never(nbytes):
            return False
        async with self._evicting:
            excess = self._room.excess(self.stats.cached_bytes, nbytes)
            if excess and time.monotonic() > self._futile_until:
                with self._disk():
                    await self._evict(excess)
                self._room.freed()
                excess = self._room.excess(self.stats.cached_bytes, nbytes)
                if excess:
                    self._futile_until = time.monotonic() + FUTILE_S
                if self._room.lacking(nbytes) > 0:
                    self._disk_failed(OSError(errno.ENOSPC, "less than min_free_bytes would be free"))
            return not excess

    async def _evict(self, nbytes: int) -> None:
        """Evict so much, by rank, least recently used first, if there is so much that may go."""
        ranked: dict[int, list[Version]] = {}
        for version in self.everything():
            if _may_go(version):
                ranked.setdefault(self._rank(version.path), []).append(version)
        for rank in sorted(rank for rank in ranked if rank < PINNED):
            while nbytes > 0 and (versions := list(filter(_may_go, ranked[rank]))):
                freed = 0
                for choice in await self._choose(versions, nbytes):
                    freed += await self._evict_choice(choice, forget=not rank)
                if not freed:
                    break
                nbytes -= freed

    async def _choose(self, versions: Sequence[Version], nbytes: int) -> list[Choice]:
        if self._by_extent:
            return await self._run(choose, versions, nbytes)
        oldest = min((v for v in versions if not v.users), key=lambda v: v.last_used, default=None)
        return [] if oldest is None else [Choice(oldest, np.empty(0, np.int64), whole=True)]

    async def _evict_choice(self, choice: Choice, *, forget: bool) -> int:
        """Evict what was chosen; returns the bytes freed.

        With `forget`, a version of which all goes leaves nothing behind, not even its manifest.
        """
        version = choice.version
        if not _may_go(version):
            return 0
        nbytes = 0
        if self._by_extent and not (choice.whole and forget and not version.users):
            assert self._index is not None
            with self.holding(version), self._disk():
                await self._mark_dirty(version)
                count, nbytes, error = await self._run(evict_extents, self._index, version, choice.numbers)
                self._count(version, -nbytes)
                self.stats.evicted += count
                self.stats.evicted_bytes += nbytes
                if error is not None:
                    self._by_extent = error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS)
                    raise error
                if nbytes:
                    return nbytes
        # not by extents, or they cannot be found any more
        if not version.users and _may_go(version):
            nbytes += version.cached_bytes
            self.stats.evicted += max(len(choice.numbers), 1)
            self.stats.evicted_bytes += version.cached_bytes
            self._strike(version)
            await self._run(self._delete_files, [version])
        return nbytes

    # -- work on the disk ------------------------------------------------------------------------

    async def _run(self, work: Callable[..., T], *args: Any) -> T:  # Any: passed through to `work`
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work that must be accounted for even if who wants it is cancelled meanwhile."""
        task = asyncio.create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return await asyncio.shield(task)

    def _later(self, work: Callable[..., None], *args: Any) -> None:
        async def run() -> None:
            with self._disk():
                await self._run(work, *args)

        task = asyncio.create_task(run())
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        touched, self._touched = self._touched, set()
        if self._index is not None:
            self._later(self._index.update, [row_state(version) for version in touched if version.id])

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Let a failure of the disk be no more than a cache that does not keep what it should."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._disk_failed(error)

    def _disk_works(self) -> None:
        # Not at once: on a full disk small writes succeed between large ones that fail
        if self.stats.degraded and self._recovery is None:
            self._recovery = asyncio.get_running_loop().call_later(RECOVERED_S, self._recover)

    def _recover(self) -> None:
        self._recovery = None
        self.stats.degraded = False
        log.info("the cache in %s can be used again", self._directory)

    def _disk_failed(self, error: Exception) -> None:
        self.stats.disk_errors += 1
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        if not self.stats.degraded:
            self.stats.degraded = True
            log.warning("the cache in %s cannot be used, data is passed through: %s", self._directory, error)


def _may_go(version: Version) -> bool:
    return bool(version.cached_bytes) and not version.held and not version.doomed
