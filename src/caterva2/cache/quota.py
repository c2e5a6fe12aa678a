"""Keeping to the quota: room for what is to be written, and what is evicted for it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caterva2.cache.disk import Disk
from caterva2.cache.eviction import (
    ORDINARY,
    PINNED,
    Choice,
    Clock,
    Present,
    Queue,
    choose,
    evict_extents,
    look,
)
from caterva2.cache.holes import UNSUPPORTED, can_punch
from caterva2.cache.inventory import Inventory
from caterva2.cache.room import Room
from caterva2.cache.version import CacheStats, Version
from caterva2.model.extents import Extent
from caterva2.model.path import DatasetPath

__all__ = ["Quota"]

FUTILE_S = 1.0
"""When too little could be evicted, it is tried again after so many seconds, or when more could be."""

STEP = 500
"""After so many versions looked at, others have their turn."""

BATCH = 256
"""So many versions are deleted at once."""


class Quota:
    """Evicts what was used least recently, so that what all versions take stays below a bound.

    Parameters
    ----------
    directory : Path
    quota_bytes : int or None
        Most that the mirrors may take in all.
    min_free_bytes : int
        Least that stays free on the disk.
    rank : callable
        Returns the rank of a dataset; see `caterva2.cache.eviction`. Asked only while evicting.
    inventory : Inventory
        What is evicted from.
    disk : Disk
    stats : CacheStats
        Its `evicted` and `evicted_bytes` are kept.
    """

    def __init__(
        self,
        directory: Path,
        *,
        quota_bytes: int | None,
        min_free_bytes: int,
        rank: Callable[[DatasetPath], int],
        inventory: Inventory,
        disk: Disk,
        stats: CacheStats,
    ) -> None:
        self._directory = directory
        self._room = Room(directory, quota_bytes, min_free_bytes)
        self._rank = rank
        self._inventory = inventory
        self._disk = disk
        self._stats = stats
        self._clock = Clock()
        self._by_extent: bool | None = None  # found out before the first eviction
        self._evicting = asyncio.Lock()
        self._futile_until = 0.0
        self._futile_changes = 0

    def touch(self, version: Version, extents: Sequence[Extent]) -> None:
        """Note that extents are used now."""
        if not self._clock.touch(version, extents):
            for other in self._inventory.everything():
                other.ticks = None

    # -- room ------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def reserved(self, nbytes: int) -> AsyncIterator[bool]:
        """Have room for bytes to be written while inside, evicting what is needed; False if there is none."""
        if self._room.excess(self._stats.cached_bytes, nbytes) and not await self._make_room(nbytes):
            yield False
            return
        self._room.reserved_bytes += nbytes
        try:
            yield True
        finally:
            self._room.reserved_bytes -= nbytes

    def written(self, nbytes: int) -> None:
        """Note that so much less of the disk is free."""
        self._room.written(nbytes)

    async def hand_over(self, version: Version, numbers: npt.NDArray[np.int64], nbytes: int) -> None:
        """Evict extents that another version is about to keep, if there is no room for both."""
        if self._room.excess(self._stats.cached_bytes, nbytes) and _may_go(version):
            async with self._evicting:
                if await self._evicts_by_extent():
                    await self._evict_extents(Choice(version, numbers, whole=False))
                    self._room.freed()

    async def _evicts_by_extent(self) -> bool:
        if self._by_extent is None:
            self._by_extent = await self._disk.run(can_punch, self._directory)
        return self._by_extent

    async def _make_room(self, nbytes: int) -> bool:
        never = self._room.never(nbytes)
        if never:
            nbytes = 0  # what is here may be too much all the same: the quota can be another than last time
        async with self._evicting:
            excess = self._room.excess(self._stats.cached_bytes, nbytes)
            if excess and not self._is_futile():
                with self._disk.health.guard():
                    await self._evict(excess)
                self._room.freed()
                excess = self._room.excess(self._stats.cached_bytes, nbytes)
                if excess:
                    self._futile_until = time.monotonic() + FUTILE_S
                    self._futile_changes = self._inventory.changes
                if self._room.lacking(nbytes) > 0:
                    self._disk.health.failed(OSError(errno.ENOSPC, "less than min_free_bytes would be free"))
            return not (excess or never)

    def _is_futile(self) -> bool:
        return self._inventory.changes == self._futile_changes and time.monotonic() <= self._futile_until

    # -- eviction --------------------------------------------------------------------------------

    async def _evict(self, nbytes: int) -> None:
        """Evict so much, by rank, least recently used first, if there is so much that may go."""
        by_extent = await self._evicts_by_extent()
        versions = list(filter(_may_go, self._inventory.everything()))
        queue = await self._disk.run(partial(Queue, versions, by_extent=by_extent))
        ranks: dict[Version, int] = {}  # of those that were asked for
        for rank in range(PINNED):
            freed = 1
            while nbytes > 0 and freed:
                queue.restart()
                choices = await self._choose(queue, rank, ranks, nbytes)
                freed = await self._evict_choices(choices, forget=not rank)
                nbytes -= freed

    async def _choose(self, queue: Queue, rank: int, ranks: dict[Version, int], nbytes: int) -> list[Choice]:
        choices: list[Choice] = []
        present: list[Present] = []
        before = math.inf
        # each time more is known, and the rest has to be older to matter
        while versions := await self._take(queue, rank, ranks, nbytes, before):
            if not self._by_extent:
                return [Choice(version, np.empty(0, np.int64), whole=True) for version in versions]
            present += await self._disk.run(look, versions)
            choices, before = await self._disk.run(choose, present, nbytes)
        return choices

    async def _take(
        self, queue: Queue, rank: int, ranks: dict[Version, int], nbytes: int, before: float
    ) -> list[Version]:
        """Take the next versions of a rank, of so many bytes, that may have extents from before a tick."""
        taken: list[Version] = []
        looked = 0
        while nbytes > 0 and (version := queue.pop(before)):
            if version not in ranks:
                ranks[version] = ORDINARY if version.superseded else self._rank(version.path)
            if ranks[version] == rank and _may_go(version) and (self._by_extent or not version.users):
                taken.append(version)
                nbytes -= version.cached_bytes
            looked += 1
            if looked % STEP == 0:
                await asyncio.sleep(0)
        return taken

    async def _evict_choices(self, choices: Sequence[Choice], *, forget: bool) -> int:
        """Evict what was chosen; returns the bytes freed.

        With `forget`, a version of which all goes leaves nothing behind, not even its manifest.
        """
        nbytes, whole = 0, []
        for choice in choices:
            if self._by_extent and not (choice.whole and forget and not choice.version.users):
                nbytes += await self._evict_choice(choice)
            else:
                whole.append(choice)
        for start in range(0, len(whole), BATCH):
            nbytes += await self._evict_whole(whole[start : start + BATCH])
        return nbytes

    async def _evict_choice(self, choice: Choice) -> int:
        if not _may_go(choice.version):
            return 0
        nbytes, freed = await self._evict_extents(choice)
        return nbytes if freed else nbytes + await self._evict_whole([choice])

    async def _evict_whole(self, choices: Sequence[Choice]) -> int:
        """Evict versions, those with readers inside excepted; returns the bytes freed."""
        choices = [choice for choice in choices if _may_go(choice.version) and not choice.version.users]
        nbytes = sum(choice.version.cached_bytes for choice in choices)
        self._count(sum(max(len(choice.numbers), 1) for choice in choices), nbytes)
        await self._inventory.evict([choice.version for choice in choices])
        return nbytes

    async def _evict_extents(self, choice: Choice) -> tuple[int, bool]:
        """Punch holes where extents were.

        Returns
        -------
        nbytes : int
            Bytes that are absent now.
        freed : bool
            Whether there are any, and all their space was given back.
        """
        index, version = self._inventory.index, choice.version
        assert index is not None
        nbytes = 0
        with self._inventory.holding(version), self._disk.health.guard():
            await self._inventory.mark_dirty(version)
            count, nbytes, error = await self._disk.run(evict_extents, index, version, choice.numbers)
            self._inventory.count(version, -nbytes)
            self._count(count, nbytes)
            if error is not None:
                self._by_extent = error.errno not in UNSUPPORTED
                raise error
            return nbytes, bool(nbytes)
        return nbytes, False

    def _count(self, extents: int, nbytes: int) -> None:
        self._stats.evicted += extents
        self._stats.evicted_bytes += nbytes


def _may_go(version: Version) -> bool:
    return bool(version.cached_bytes) and not version.held and not version.doomed
