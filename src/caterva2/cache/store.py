"""The versions on disk: what is read of them and written, within the quota.

Belongs to one event loop; disk work goes to the executor. Failures of the disk are counted and logged once,
and end here: what cannot be read counts as absent, what cannot be written is not kept.

Architecture invariant: nothing here asks anybody for anything; see `caterva2.cache.cached` for that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caterva2.cache.contents import Contents, contents_of
from caterva2.cache.disk import Disk
from caterva2.cache.inventory import Inventory
from caterva2.cache.manifests import Manifests
from caterva2.cache.mirror import Mirror
from caterva2.cache.quota import Quota
from caterva2.cache.recovery import is_complete
from caterva2.cache.version import CacheStats, Version
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath

__all__ = ["Store"]

INLINE_BYTES = 256 * 1024
"""So much is read on the loop, in bytes, if the system has it in memory: a thread would take longer."""

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
        self.stats = stats
        self._scratch = memoryview(bytearray(INLINE_BYTES))
        self._disk = Disk(directory, executor, stats)
        self._inventory = Inventory(directory, durable=durable, disk=self._disk, stats=stats)
        self._manifests = Manifests(self._inventory, self._disk, stats)
        self._quota = Quota(
            directory,
            quota_bytes=quota_bytes,
            min_free_bytes=min_free_bytes,
            rank=rank,
            inventory=self._inventory,
            disk=self._disk,
            stats=stats,
        )

    async def open(self) -> None:
        """Open the directory; see `Inventory.open`.

        Raises
        ------
        ConfigError
            If it was written by a newer release.
        """
        await self._inventory.open()

    async def close(self) -> None:
        """Finish what is under way, write what was used when, and close all files."""
        await self._disk.close()
        await self._inventory.close()

    # -- versions --------------------------------------------------------------------------------

    def find(self, path: DatasetPath, etag: str) -> Version | None:
        """Return a version that is here."""
        return self._inventory.find(path, etag)

    def everything(self) -> list[Version]:
        """Return all versions that are here."""
        return self._inventory.everything()

    def all_of(self, path: DatasetPath) -> list[Version]:
        """Return all versions of a dataset that are here."""
        return self._inventory.all_of(path)

    async def add(self, head: Head) -> Version:
        """Return the version of a head, made if it is not here."""
        return await self._manifests.add(head)

    def using(self, version: Version, *, whole: bool = False) -> AbstractContextManager[None]:
        """Keep the files of a version while inside, if `whole` all that is in them, and note its use."""
        return self._inventory.using(version, whole=whole)

    def used(self, version: Version) -> None:
        """Note the use of a version."""
        self._inventory.used(version)

    def holding(self, version: Version, *, whole: bool = False) -> AbstractContextManager[None]:
        """Do as `using`, without counting that as use."""
        return self._inventory.holding(version, whole=whole)

    def remove(self, versions: Sequence[Version], *, forget: bool) -> None:
        """Remove versions, those with readers inside once they have left; see `Inventory.remove`."""
        self._inventory.remove(versions, forget=forget)

    def supersede(self, version: Version) -> None:
        """Note that a version is the current one, and let others of its dataset go.

        Two stay while something is here of them: the last, and the one of which most is here. So a later
        version, and who reads them still, find what was here.
        """
        version.superseded = False
        others = [other for other in self.all_of(version.path) if other is not version and not other.doomed]
        if all(other.superseded for other in others):
            return
        useful = [other for other in others if other.cached_bytes]
        kept = {*sorted(useful, key=_age)[-1:], *sorted(useful, key=_bytes)[-1:]}
        for other in others:
            other.superseded = True
        self.remove([other for other in others if other not in kept], forget=False)

    # -- manifests -------------------------------------------------------------------------------

    def head(self, version: Version) -> Head | None:
        """Return the head of a version; None if it was damaged on disk."""
        return self._manifests.head(version)

    def page(self, version: Version, head: Head, number: int) -> Page | None:
        """Return a page of a version; None if it is not here, or was damaged on disk."""
        return self._manifests.page(version, head, number)

    async def add_pages(self, version: Version, pages: Sequence[Page]) -> None:
        """Keep pages of a version."""
        await self._manifests.add_pages(version, pages)

    @property
    def manifest_bytes(self) -> int:
        """What manifests take in memory."""
        return self._manifests.nbytes

    @property
    def open_mirrors(self) -> int:
        """How many mirrors have their files open."""
        return self._inventory.open_mirrors

    # -- extents ---------------------------------------------------------------------------------

    async def read(self, version: Version, extents: Sequence[Extent]) -> list[bytes | None]:
        """Return the bytes of extents; None for those that are absent or were found to be wrong."""
        mirror = version.mirror
        self._quota.touch(version, extents)
        if mirror is None or not version.cached_bytes:
            return [None] * len(extents)
        try:
            if sum(extent.size for extent in extents) <= INLINE_BYTES:
                pieces = mirror.read_now(extents, self._scratch)
                if pieces is not None:
                    return pieces
            return await self._disk.whole(self._read(version, mirror, extents))
        except OSError as error:
            self._disk.health.failed(error)
            return [None] * len(extents)

    def read_now(self, version: Version, extents: Sequence[Extent]) -> list[bytes] | None:
        """Do as `read` and note the use of the version, if all is here and known to be right.

        Returns
        -------
        list of bytes or None
            None if anything is absent, has to be checked, or the disk would have to be waited for.
        """
        if version.mirror is None or sum(extent.size for extent in extents) > INLINE_BYTES:
            return None
        try:
            found = version.mirror.read_now(extents, self._scratch)
        except OSError:  # `read` finds out and says so
            return None
        pieces = [piece for piece in found or () if piece is not None]
        if len(pieces) < len(extents):
            return None
        self._quota.touch(version, extents)
        self._inventory.used(version)
        return pieces

    async def _read(self, version: Version, mirror: Mirror, extents: Sequence[Extent]) -> list[bytes | None]:
        with self.using(version):
            return await self._judged(version, *await self._disk.run(mirror.read, extents))

    async def _judged(
        self, version: Version, pieces: list[bytes | None], rejected: list[Extent], verified: int
    ) -> list[bytes | None]:
        self.stats.verified += verified
        self.stats.rejected += len(rejected)
        if rejected:
            await self._correct(version, -sum(extent.size for extent in rejected))
        for extent in rejected:
            log.warning(
                "%d bytes of the mirror of %s at offset %d do not match their digest: fetching them again",
                extent.size,
                version.path,
                extent.offset,
            )
        return pieces

    async def contents(self, version: Version) -> Contents | None:
        """Return what is here of a version, by digest; None if the disk cannot be read."""
        index = self._inventory.index
        if index is not None:
            with self.holding(version), self._disk.health.guard():
                return await self._disk.run(contents_of, index, version)
        return None

    async def take_over(
        self, version: Version, other: Version, pairs: Sequence[tuple[Extent, Extent]]
    ) -> dict[int, bytes]:
        """Keep extents of another version, which give way where there is no room for both.

        Parameters
        ----------
        version, other : Version
        pairs : sequence of (Extent, Extent)
            Extents of the version, and those of the other that have the same digest.

        Returns
        -------
        dict of int to bytes
            The bytes of those that could be read, by number in the version.
        """
        mirror = other.mirror
        if mirror is None:
            return {}
        found = [extent for _, extent in pairs]
        pieces: list[bytes | None] = [None] * len(pairs)
        with self.holding(other), self._disk.health.guard():
            pieces = await self._judged(other, *await self._disk.run(mirror.read, found))
        items = [
            (extent, piece) for (extent, _), piece in zip(pairs, pieces, strict=True) if piece is not None
        ]
        nbytes = sum(extent.size for extent, _ in items)
        await self._quota.hand_over(other, np.unique([extent.number for extent in found]), nbytes)
        self.stats.taken_over += len(items)
        self.stats.taken_over_bytes += nbytes
        await self.write(version, items)
        return {extent.number: piece for extent, piece in items}

    def unverified(self, version: Version, extents: Sequence[Extent]) -> list[Extent]:
        """Return the extents that are absent, or have not been checked since the start."""
        if version.mirror is not None and version.cached_bytes:
            with self._disk.health.guard():
                return version.mirror.unverified(extents)
        return list(extents)

    def absent(self, version: Version, extents: Sequence[Extent]) -> list[Extent]:
        """Return the extents that are absent."""
        if version.mirror is not None and version.cached_bytes:
            with self._disk.health.guard():
                return version.mirror.absent(extents)
        return list(extents)

    async def numbers(self, version: Version) -> npt.NDArray[np.int64]:
        """Return the numbers of the extents present, ascending; none if the disk cannot be read."""
        if version.mirror is not None:
            with self.holding(version), self._disk.health.guard():
                return await self._disk.run(version.mirror.numbers)
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
        return await self._disk.whole(self._check(version, version.mirror, extents))

    async def _check(
        self, version: Version, mirror: Mirror, extents: Sequence[Extent]
    ) -> list[Extent] | None:
        with self.holding(version), self._disk.health.guard():
            pieces, rejected, verified = await self._disk.run(mirror.check, extents)
            await self._judged(version, pieces, rejected, verified)
            return rejected
        return None

    async def forget_extents(self, version: Version, numbers: npt.NDArray[np.int64]) -> None:
        """Make extents absent of which no digest is known; `correct` sets the count right."""
        if version.mirror is not None and len(numbers):
            with self.holding(version), self._disk.health.guard():
                await self._disk.run(version.mirror.clear, numbers)

    async def correct(self, version: Version, nbytes: int) -> None:
        """Add to the bytes that a version is said to have here."""
        await self._correct(version, nbytes)
        with self._disk.health.guard():
            await self._complete(version)

    async def _correct(self, version: Version, nbytes: int) -> None:
        self._inventory.count(version, nbytes)
        with self._disk.health.guard():
            await self._inventory.mark_dirty(version)

    async def write(self, version: Version, items: Sequence[tuple[Extent, bytes]]) -> bool:
        """Keep bytes that have been checked; returns whether they were kept."""
        kept = False
        if version.mirror is not None:
            kept = await self._disk.whole(self._write(version, version.mirror, items))
        if not kept:
            self.stats.passed_through += len(items)
        return kept

    async def _write(self, version: Version, mirror: Mirror, items: Sequence[tuple[Extent, bytes]]) -> bool:
        nbytes = sum(extent.size for extent, _ in items)
        with self.holding(version), self._disk.health.guard():
            async with self._quota.reserved(nbytes) as there_is_room:
                if there_is_room:
                    with self.using(version):
                        await self._keep(version, mirror, items)
                        return True
        return False

    async def _keep(self, version: Version, mirror: Mirror, items: Sequence[tuple[Extent, bytes]]) -> None:
        await self._inventory.mark_dirty(version)
        new, error = await self._disk.run(mirror.write, items)
        nbytes = sum(extent.size for extent in new)
        self._inventory.count(version, nbytes)
        self._quota.written(nbytes)
        if error is not None:
            raise error
        self._disk.health.works()
        await self._complete(version)

    async def _complete(self, version: Version) -> None:
        """Find out whether a version is all here, once enough bytes are."""
        index = self._inventory.index
        if version.complete or version.cached_bytes < version.size or index is None:
            return
        complete = await self._disk.run(is_complete, index, version)
        version.complete = complete and version.cached_bytes >= version.size
        if version.complete and not version.superseded:
            self.remove([other for other in self.all_of(version.path) if other.superseded], forget=False)


def _age(version: Version) -> int:
    return version.id


def _bytes(version: Version) -> int:
    return version.cached_bytes
