"""Checking a mirror: everything present is hashed again, what is wrong is made absent and fetched again.

The digests are those of the manifest pages that the index keeps. Nobody is asked for a page that is missing:
what has no known digest cannot be checked, and is dropped. Readers go on meanwhile; the check counts as no
use of the version, so that the order of eviction stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caterva2.cache.census import present_bytes
from caterva2.cache.store import Store
from caterva2.cache.version import Version
from caterva2.errors import Caterva2Error
from caterva2.model.batched import batched
from caterva2.model.extents import FIXED_SLOTS, Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.source.protocol import Source

__all__ = ["Checked", "check_version"]

BATCH_BYTES = 8 * 1024 * 1024
"""So much is hashed at once, and held in memory."""

QUIET_S = 2.0
QUIET_STEP_S = 0.01
"""How long to wait until nobody is inside, so that what is present can be counted, in seconds."""

log = logging.getLogger(__name__)

_Numbers = npt.NDArray[np.int64]


@dataclass(slots=True)
class Checked:
    """What the check of a version found.

    Attributes
    ----------
    path : DatasetPath
    etag : str
    extents, bytes : int
        What was hashed.
    wrong : int
        Extents that did not match their digest.
    repaired : int
        Those of them that were fetched again.
    dropped : int
        Extents that are absent now: wrong and not to be had, or of no known digest.
    unreadable : int
        Extents that the disk did not give.
    corrected_bytes : int
        What the book-keeping was off by, beyond what was wrong: what is present less what was counted.
    """

    path: DatasetPath
    etag: str
    extents: int = 0
    bytes: int = 0
    wrong: int = 0
    repaired: int = 0
    dropped: int = 0
    unreadable: int = 0
    corrected_bytes: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not (self.wrong or self.dropped or self.unreadable or self.corrected_bytes)


async def check_version(store: Store, source: Source, version: Version) -> Checked:
    """Hash all that is here of a version again.

    Parameters
    ----------
    store : Store
    source : Source
        The cache itself: what is read through it is fetched and kept.
    version : Version

    Returns
    -------
    Checked
    """
    found = Checked(version.path, version.etag)
    with store.holding(version):
        numbers = await store.numbers(version)
        head = store.head(version)
        if head is None:  # damaged in the index: nothing of it can be checked
            log.warning("the index has no sound head of %s: all of it is dropped", version.path)
            found.dropped = len(numbers)
            store.remove([version], forget=True)
            return found
        await _Check(store, source, version, head, found).run(numbers)
    return found


class _Check:
    """The check of a version under way; what it finds goes to `found`."""

    def __init__(self, store: Store, source: Source, version: Version, head: Head, found: Checked) -> None:
        self._store = store
        self._source = source
        self._version = version
        self._head = head
        self._found = found
        self._reachable = True

    async def run(self, numbers: _Numbers) -> None:
        async for page, some in self._pages(numbers):
            present = set(some.tolist())
            extents = [extent for extent in _known(self._head, page, some) if extent.number in present]
            lost = np.array(sorted(present - {extent.number for extent in extents}), np.int64)
            await self._drop(lost)
            for batch in batched(extents, BATCH_BYTES):
                await self._check(batch)
        await self._recount()

    async def _pages(self, numbers: _Numbers) -> AsyncIterator[tuple[Page | None, _Numbers]]:
        """Yield the extent numbers of the fixed parts, then those of each page with it, if it is here."""
        bounds = FIXED_SLOTS + self._head.page_starts * self._head.slots_per_chunk
        pieces = np.split(numbers, np.searchsorted(numbers, bounds))
        yield None, pieces[0]
        for number, piece in enumerate(pieces[1:]):
            if len(piece):
                yield self._store.page(self._version, self._head, number), piece
                await asyncio.sleep(0)  # a version of many pages must not hold up the readers

    async def _drop(self, numbers: _Numbers) -> None:
        if len(numbers):
            log.warning(
                "%d extents of the mirror of %s have no known digest: dropped", len(numbers), self._head.path
            )
            self._found.dropped += len(numbers)
            await self._store.forget_extents(self._version, numbers)

    async def _check(self, extents: list[Extent]) -> None:
        wrong = await self._store.check(self._version, extents)
        if wrong is None:
            self._found.unreadable += len(extents)
            return
        self._found.extents += len(extents)
        self._found.bytes += sum(extent.size for extent in extents)
        if wrong:
            repaired = await self._repair(wrong)
            self._found.wrong += len(wrong)
            self._found.repaired += repaired
            self._found.dropped += len(wrong) - repaired

    async def _repair(self, wrong: list[Extent]) -> int:
        """Fetch extents again; returns how many are here now."""
        if self._reachable:
            try:
                await self._source.read(self._head, wrong)
            except Caterva2Error as error:
                self._reachable = False  # asking again for each batch would take for ever
                log.warning("%s cannot be repaired now: %s", self._head.path, error)
        return len(wrong) - len(await self._absent(wrong))

    async def _absent(self, extents: list[Extent]) -> set[int]:
        """Return the numbers of those that are not kept, also where there was no room for them."""
        here = set((await self._store.numbers(self._version)).tolist())
        return {extent.number for extent in extents} - here

    async def _recount(self) -> None:
        """Let what is counted be what is present.

        Both are taken while nobody else is inside: whatever is written or found to be wrong later changes
        both alike. A version that is never quiet keeps its count.
        """
        for _ in range(int(QUIET_S / QUIET_STEP_S)):
            if self._version.users == 1:
                counted, entered = self._version.cached_bytes, self._version.entered
                numbers = await self._store.numbers(self._version)
                if self._version.entered == entered + 1:  # we did
                    break
            await asyncio.sleep(QUIET_STEP_S)
        else:
            log.info("%s is being read all the time: its bytes were not counted again", self._head.path)
            return
        nbytes = 0
        async for page, some in self._pages(numbers):
            nbytes += present_bytes(self._head, [page] if page else [], some)[0]
        if nbytes != counted:
            log.warning("of %s %d bytes were counted, %d are present", self._head.path, counted, nbytes)
            self._found.corrected_bytes = nbytes - counted
        await self._store.correct(self._version, nbytes - counted)


def _known(head: Head, page: Page | None, numbers: _Numbers) -> Iterable[Extent]:
    """Return the extents of the fixed parts, or those of the chunks of a page that have some numbers."""
    if not len(numbers):
        return ()
    if numbers[0] < FIXED_SLOTS:
        return head.fixed
    if page is None:
        return ()
    nchunks = np.unique((numbers - FIXED_SLOTS) // head.slots_per_chunk)
    return [extent for nchunk in nchunks.tolist() for extent in page.chunk_extents(nchunk)]
