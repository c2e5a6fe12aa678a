"""Fetching what nobody waits for yet: all of a version, what was here of earlier ones, what a slice needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from caterva2.cache.batches import first_done, in_batches
from caterva2.cache.earlier import Earlier
from caterva2.cache.layout import PAGES, Layout
from caterva2.cache.renewal import renewed
from caterva2.cache.store import Store
from caterva2.cache.version import Version
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.source.protocol import Source

__all__ = ["Filling"]

FILL_BATCH_BYTES = 8 * 1024 * 1024
PREPARE_BATCH_BYTES = 2 * 1024 * 1024
FILL_BATCHES = 3
"""Batches under way."""

UNKEPT_S = 10.0
"""When what a slice needs could not be kept, nothing more is fetched that way for so long, in seconds."""


class Filling:
    """Fetches extents to be kept. Belongs to one event loop.

    Parameters
    ----------
    store : Store
        What is here.
    source : Source
        The cache itself: what is read through it is kept, if there is room.
    layout : Layout
    earlier : Earlier
    """

    def __init__(self, store: Store, source: Source, layout: Layout, earlier: Earlier) -> None:
        self._store = store
        self._source = source
        self._layout = layout
        self._earlier = earlier
        self._unkept_until = 0.0

    async def fill(self, head: Head, version: Version) -> bool:
        """Fetch all of a version that is not here; see `CachedSource.fill`."""
        with self._store.using(version, whole=True):
            batches = self._layout.batches(head, 0, head.size, FILL_BATCH_BYTES)
            if not await self._fill(head, version, batches):
                return False
            if not version.complete:
                await self._fill_manifest(head, version)
            return True

    async def _fill_manifest(self, head: Head, version: Version) -> None:
        """Have the pages too that nothing was read by: where there are only zeros, who reads must know."""
        for first in range(0, head.npages, PAGES):
            await self._source.pages(head, range(first, min(first + PAGES, head.npages)))
        await self._store.correct(version, 0)

    async def refresh(self, head: Head, version: Version, *, full: bool) -> bool:
        """Fetch what was here of earlier versions, and let these go; see `CachedSource.refresh`."""
        earlier = self._earlier.versions(version)
        if (full or any(other.complete for other in earlier)) and not version.complete:
            return await self.fill(head, version)
        for other in () if version.complete else earlier:
            if old := self._store.head(other):
                extents = renewed(self._source, head, old, await self._store.numbers(other))
                with self._store.using(version):
                    if not await self._fill(head, version, in_batches(extents, FILL_BATCH_BYTES)):
                        return False
        self._store.remove(earlier, forget=False)
        return True

    async def prepare(self, head: Head, version: Version, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Fetch what of extents is not here, if it can be kept; see `Source.prepare`."""
        if version.complete or time.monotonic() < self._unkept_until:
            return
        with self._store.using(version):
            if not await self._fill(head, version, in_batches(groups, PREPARE_BATCH_BYTES)):
                self._unkept_until = time.monotonic() + UNKEPT_S

    async def _fill(self, head: Head, version: Version, batches: AsyncGenerator[Sequence[Extent]]) -> bool:
        """Fetch what of batches is not here; returns whether it could be kept, and stops where not."""
        under_way: set[asyncio.Task[list[bytes]]] = set()
        stats = self._store.stats
        passed_through = stats.passed_through
        try:
            async for batch in batches:
                missing = self._store.unverified(version, batch)
                if not missing:
                    continue
                under_way.add(asyncio.create_task(self._source.read(head, missing)))
                if len(under_way) == FILL_BATCHES:
                    under_way = await first_done(under_way)
                if stats.passed_through > passed_through:
                    break
            while under_way:
                under_way = await first_done(under_way)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await batches.aclose()
        return stats.passed_through == passed_through
