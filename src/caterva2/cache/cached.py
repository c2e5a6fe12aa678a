"""The cache: a `Source` that keeps what it has read of others, and asks them only for what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

from caterva2.cache.batches import between, joined
from caterva2.cache.earlier import Earlier
from caterva2.cache.eviction import FOLLOWED, ORDINARY
from caterva2.cache.fetching import Fetching
from caterva2.cache.filling import Filling
from caterva2.cache.followup import FollowUps
from caterva2.cache.fsck import Checked, check_version
from caterva2.cache.here import Here
from caterva2.cache.layout import Layout
from caterva2.cache.slices import Slices
from caterva2.cache.store import Store
from caterva2.cache.version import CachedVersion, CacheState, CacheStats, Version
from caterva2.errors import Caterva2Error, Changed
from caterva2.model.extents import Extent, Fixed
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry
from caterva2.source.maker import SliceMaker
from caterva2.source.protocol import Source

__all__ = ["CachedSource"]

STREAM_BATCH_BYTES = 4 * 1024 * 1024
"""A stream holds about twice this in memory: the batch being sent and the next."""

CATCH_UP_S = 1.0
"""How long to wait for news of a version that the origin has but we have not heard of yet, in seconds."""

FOLLOW_UP_SHARE = 4
"""Blocks of what was read as a slice are fetched if they take no more than this part of the quota."""

_Key = tuple[Hashable, int]


class CachedSource:
    """A `caterva2.source.protocol.Source`: mirrors on disk in front of origins.

    What is here of the current version of a dataset is served without asking anybody.

    Parameters
    ----------
    directory : Path
        Belongs to this process alone; made if absent.
    current : callable
        Returns the current version of a dataset from memory; raises `NotFound`.
    origin : callable
        Returns who has a dataset; raises `NotFound` or `Unavailable`. Its `read` must check digests.
    quota_bytes : int or None
        Most that the mirrors may take, what is in flight excepted.
    executor : Executor
        For work on the disk and for hashing.
    min_free_bytes : int
        Least that stays free on the disk.
    durable : bool
        Whether what is kept is to survive the machine, not just this process.
    rank : callable
        Returns what a dataset is, asked only while evicting: 0 ordinary, 1 followed (goes after all
        ordinary ones), 2 pinned (never goes).
    shared : bool
        Others read by ranges through it, also when the origin is gone: of each frame of which anything is
        kept the index is too, since that says what is at which offset.
    maker : callable
        Returns who makes slices of a dataset, where that is faster than fetching its blocks; None if there is
        nobody.

    Attributes
    ----------
    here : Here
        What is here, for those who want no origin to be asked.
    slices : Slices
        What is not here and is best had as a slice.
    """

    def __init__(
        self,
        directory: Path,
        *,
        current: Callable[[DatasetPath], Entry],
        origin: Callable[[DatasetPath], Source],
        quota_bytes: int | None,
        executor: Executor,
        min_free_bytes: int = 0,
        durable: bool = False,
        rank: Callable[[DatasetPath], int] = lambda _path: ORDINARY,
        shared: bool = False,
        maker: Callable[[DatasetPath], SliceMaker | None] = lambda _path: None,
    ) -> None:
        self.stats = CacheStats()
        self._shared = shared
        self._current = current
        self._store = Store(
            directory,
            quota_bytes=quota_bytes,
            min_free_bytes=min_free_bytes,
            durable=durable,
            rank=rank,
            executor=executor,
            stats=self.stats,
        )
        self.here = Here(self._store, current, self._fetch_index_later)
        self._earlier = Earlier(self._store)
        self._layout = Layout(self)
        self._fetching = Fetching(self._store, self._earlier, current, origin, self._was_kept)
        self._filling = Filling(self._store, self, self._layout, self._earlier)
        self._later: dict[_Key, asyncio.Task[None]] = {}
        self._follow_ups = FollowUps(
            self._store,
            self,
            lambda path: rank(path) >= FOLLOWED,
            None if quota_bytes is None else quota_bytes // FOLLOW_UP_SHARE,
            self._count_follow_up,
        )
        self.slices = Slices(self._store, maker, self._follow_ups, executor)

    def _count_follow_up(self) -> None:
        self.slices.stats.followed_up += 1

    async def open(self) -> None:
        """Open the directory. While it cannot be used, everything is passed through.

        Raises
        ------
        ConfigError
            If it was written by a newer release.
        """
        await self._store.open()

    async def close(self) -> None:
        """End the fetches under way and close all files. What is here stays."""
        await self._follow_ups.close()
        await self.slices.close()
        later = list(self._later.values())
        for task in later:
            task.cancel()
        await asyncio.gather(*later, return_exceptions=True)
        await self._fetching.close()
        await self._earlier.close()
        await self._store.close()

    # -- the contract ----------------------------------------------------------------------------

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version; see `Source.head`.

        A version that is not current any more is served while its mirror is here.

        Raises
        ------
        NotFound, Changed, Unavailable
        """
        entry = self._current(path)
        if etag is not None and etag != entry.etag:
            old = self._store.find(path, etag)
            if old is not None and (head := self._store.head(old)):
                return head
            raise Changed(str(path), etag, entry.etag)
        if head := self._known_head(path, entry.etag):
            return head
        try:
            return await self._fetching.head(path, entry.etag)
        except Changed:
            if etag is not None:
                raise
        entry = await self._after(path, entry)
        return self._known_head(path, entry.etag) or await self._fetching.head(path, entry.etag)

    def _known_head(self, path: DatasetPath, etag: str) -> Head | None:
        version = self._store.find(path, etag)
        if version is None or version.doomed:
            return None
        self._fetching.supersede(version)
        head = self._store.head(version)
        if head is None:  # damaged on disk
            self._store.remove([version], forget=True)
        return head

    async def _after(self, path: DatasetPath, entry: Entry) -> Entry:
        """Wait for the version after one that the origin has replaced."""
        deadline = time.monotonic() + CATCH_UP_S
        while (now := self._current(path)).etag == entry.etag:
            if time.monotonic() > deadline:
                raise Changed(str(path), entry.etag)
            await asyncio.sleep(0.02)
        return now

    async def pages(
        self,
        head: Head,
        numbers: Sequence[int],
        known: Mapping[int, Page] | None = None,  # noqa: ARG002  # nothing is moved
    ) -> list[Page]:
        """Return pages of a version's manifest; see `Source.pages`.

        Raises
        ------
        NotFound, Changed, Unavailable, IndexError
        """
        head.check_pages(numbers)
        version = await self._version(head)
        found = {number: self._store.page(version, head, number) for number in numbers}
        self._store.used(version)
        missing = [number for number, page in found.items() if page is None]
        if missing:
            with self._store.using(version):
                found |= await self._fetching.pages(head, version, missing)
        return [page for number in numbers if (page := found[number]) is not None]

    async def read(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of extents, from here or from the origin; see `Source.read`.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError
        """
        version = await self._version(head)
        here = self._store.read_now(version, extents)
        if here is not None:
            self.stats.hits += len(here)
            return here
        with self._store.using(version):
            pieces = await self._store.read(version, extents)
            missing = [extent for extent, piece in zip(extents, pieces, strict=True) if piece is None]
            self.stats.hits += len(extents) - len(missing)
            if not missing:
                return [piece for piece in pieces if piece is not None]
            self.stats.misses += len(missing)
            got = await self._fetching.extents(head, version, missing)
        return [
            got[extent.number] if piece is None else piece
            for extent, piece in zip(extents, pieces, strict=True)
        ]

    def _was_kept(self, head: Head, version: Version) -> None:
        if self._shared:
            self._fetch_index_later(head, version)

    def _fetch_index_later(self, head: Head, version: Version) -> None:
        """Fetch the index of a frame, if it is not here, for those who come; a failure is no matter."""
        index = head.fixed_extent(Fixed.INDEX)
        key = version.entry, Fixed.INDEX
        if index is None or key in self._later or not self._store.unverified(version, [index]):
            return

        async def fetch() -> None:
            with suppress(Caterva2Error):
                await self.read(head, [index])

        self._later[key] = task = asyncio.create_task(fetch())
        task.add_done_callback(lambda _task: self._later.pop(key, None))

    async def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield bytes of a version, one batch read ahead; see `Source.stream`.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError, Corrupt
        """
        version = await self._version(head)
        # what is here now may be all there is: the origin can be gone, or at the next version
        with self._store.using(version, whole=True):
            batches = self._layout.batches(head, start, stop, STREAM_BATCH_BYTES)

            async def load() -> list[tuple[Extent, bytes]]:
                extents: list[Extent] = await anext(batches, [])
                return list(zip(extents, await self.read(head, extents), strict=True))

            ahead = asyncio.create_task(load())
            try:
                while loaded := await ahead:
                    ahead = asyncio.create_task(load())
                    for piece in joined(between(loaded, start, stop)):
                        start += len(piece)
                        yield piece
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
                await batches.aclose()

    # -- versions --------------------------------------------------------------------------------

    async def _version(self, head: Head) -> Version:
        """Return what is here of a version; made anew if it was evicted or dropped since."""
        version = self._store.find(head.path, head.etag)
        if version is not None:
            return version
        self._fetching.check_current(head)
        return await self._store.add(head)

    # -- looking after ---------------------------------------------------------------------------

    def state(self, path: DatasetPath) -> CacheState:
        """Return how much of the current version of a dataset is here.

        Raises
        ------
        NotFound
        """
        etag = self._current(path).etag
        version = self._store.find(path, etag)
        if version is None:
            return CacheState(etag, 0, False, None)
        return CacheState(etag, version.cached_bytes, version.complete, version.last_used)

    @property
    def in_flight(self) -> int:
        """How many heads, pages and extents are being fetched."""
        return self._fetching.in_flight

    @property
    def manifest_bytes(self) -> int:
        """What manifests take in memory."""
        return self._store.manifest_bytes

    @property
    def contents_bytes(self) -> int:
        """What the digests of earlier versions take in memory."""
        return self._earlier.nbytes

    @property
    def open_mirrors(self) -> int:
        """How many mirrors have their files open."""
        return self._store.open_mirrors

    def states(self) -> list[CachedVersion]:
        """Return all versions that are here, also of datasets that are not published any more, by path."""
        return sorted(
            (
                CachedVersion(
                    version.path,
                    version.etag,
                    version.size,
                    version.cached_bytes,
                    version.complete,
                    version.last_used,
                    self._fetching.is_current(version.path, version.etag),
                )
                for version in self._store.everything()
                if not version.doomed
            ),
            key=lambda state: (state.path, state.etag),
        )

    async def fsck(self, path: DatasetPath) -> list[Checked]:
        """Hash all that is here of a dataset again and repair it; see `caterva2.cache.fsck`.

        Returns
        -------
        list of Checked
            One for each version that was here.
        """
        return [
            await check_version(self._store, self, version)
            for version in self._store.all_of(path)
            if not version.doomed  # also those that went while another was checked
        ]

    async def drop(self, path: DatasetPath) -> int:
        """Remove all that is here of a dataset, also of one that is not published any more.

        Returns
        -------
        int
            Bytes freed; those that readers are inside of are freed when they leave.
        """
        versions = self._store.all_of(path)
        nbytes = sum(version.cached_bytes for version in versions)
        self._store.remove(versions, forget=True)
        return nbytes

    async def fill(self, head: Head) -> bool:
        """Fetch all of a version that is not here, and check what is from before the start.

        It can be cancelled and goes on where it was.

        Returns
        -------
        bool
            False if it ended early because there is no room.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError, Corrupt
        """
        return await self._filling.fill(head, await self._version(head))

    async def refresh(self, path: DatasetPath, *, full: bool = False) -> bool:
        """Have of the current version what was here of earlier ones, and let these go.

        Only what changed is fetched; see `caterva2.cache.earlier`. If all was here, all is. It can be
        cancelled and goes on where it was.

        Parameters
        ----------
        path : DatasetPath
        full : bool
            Have all of it, whatever was here.

        Returns
        -------
        bool
            False if it ended early because there is no room.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError, Corrupt
        """
        head = await self.head(path)
        return await self._filling.refresh(head, await self._version(head), full=full)

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Fetch what of extents is not here, some at a time; see `Source.prepare`.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError, Corrupt
        """
        await self._filling.prepare(head, await self._version(head), groups)
