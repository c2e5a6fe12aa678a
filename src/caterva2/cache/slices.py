"""Slices that are made at a root's publisher, where that is faster than fetching the blocks that they need.

A slice fills no mirror. It stays in memory for a while, as it came, for who asks for the very same; where a
part of an array is read again, or followed, its blocks are fetched in the background.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy.typing as npt

from caterva2.cache.flight import Flights
from caterva2.cache.followup import FollowUps
from caterva2.cache.lru import BytesLru
from caterva2.cache.store import Store
from caterva2.cache.version import Version
from caterva2.errors import Caterva2Error, Changed, Corrupt, IntegrityError, NotFound, Unsupported
from caterva2.frame.decode import block_extents
from caterva2.frame.geometry import geometry_of
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.model.selection import Selection
from caterva2.source.maker import MadeSlice, SliceMaker
from caterva2.source.plan import cell_pieces
from caterva2.source.planner import Costs, Missing, Way, estimate, everything, explained

__all__ = ["KEPT_BYTES", "SliceStats", "Slices"]

KEPT_BYTES = 64 * 1024 * 1024
"""Slices that are kept in memory, compressed, in bytes."""

MOST_BYTES = 64 * 1024 * 1024
"""Largest slice that is asked for, in bytes, decoded; larger answers are made of several."""

NEAR_S = 0.005
"""A host that is nearer than this is asked for no slices, in seconds: what is stored costs it least."""

LOOKED_AT = 128
"""So many pieces of a selection are looked at to see what is missing; the others are taken to be alike."""

INLINE_BYTES = 64 * 1024
"""So much is decoded at once on the loop, in bytes: handing it to a thread would take longer."""

LEAST_PATIENCE_S = 1.0
PATIENCE = 4.0
"""A slice that takes longer than this, and so many times its estimate, is given up for blocks."""

PAUSE_S = 5.0
LONG_PAUSE_S = 60.0
"""A host is asked for no slice for so long after one failed; longer if it makes none that are right."""

Array = npt.NDArray[Any]  # of whatever dtype the dataset has
_Key = tuple[str, str, Selection]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SliceStats:
    """What was chosen in place of missing blocks.

    Attributes
    ----------
    chunks, slices : int
        Times that whole chunks or a slice came.
    slice_bytes : int
        Bytes of slices that came.
    kept : int
        Slices that were asked for again and were still in memory.
    failed : int
        Slices that did not come; blocks were fetched instead.
    rejected : int
        Those of them that were not what their digest said.
    followed_up : int
        Parts of which the blocks were fetched in the background.
    """

    chunks: int = 0
    slices: int = 0
    slice_bytes: int = 0
    kept: int = 0
    failed: int = 0
    rejected: int = 0
    followed_up: int = 0


class Slices:
    """Plans what is missing of a selection, and has slices made. Belongs to one event loop.

    Parameters
    ----------
    store : Store
        What is here.
    maker : callable
        Returns who makes slices of a dataset; None if there is nobody now.
    follow_ups : FollowUps
    executor : Executor
        Where slices are decoded.
    """

    def __init__(
        self,
        store: Store,
        maker: Callable[[DatasetPath], SliceMaker | None],
        follow_ups: FollowUps,
        executor: Executor,
    ) -> None:
        self.stats = SliceStats()
        self._store = store
        self._maker = maker
        self._follow_ups = follow_ups
        self._executor = executor
        self._kept: BytesLru[_Key, MadeSlice] = BytesLru(KEPT_BYTES)
        self._flights: Flights[_Key, MadeSlice] = Flights()
        self._paused_until: dict[str, float] = {}

    async def close(self) -> None:
        """Give up what is under way."""
        await self._flights.close()

    @property
    def kept_bytes(self) -> int:
        """What slices take in memory."""
        return self._kept.nbytes

    async def slice(self, head: Head, selection: Selection) -> Array | None:
        """Return a part of an array, made elsewhere, where that is best.

        Parameters
        ----------
        head : Head
            Of an array.
        selection : Selection

        Returns
        -------
        ndarray or None
            Of ``selection.counts``, in increasing order of index; None if the part is to be read by extents,
            also where a slice was asked for and did not come.
        """
        made = await self._made(head, selection)
        if made is None:
            return None
        try:
            if made.nbytes <= INLINE_BYTES:
                return made.decode(head)
            return await asyncio.get_running_loop().run_in_executor(self._executor, made.decode, head)
        except Corrupt as error:
            self._kept.pop(_key(head, selection))
            self._failed(head, self._maker(head.path), error)
            return None

    async def prepare(self, head: Head, selection: Selection) -> bool:
        """Have a part at hand for `slice`, if that is what it is read by; return whether it is."""
        return await self._made(head, selection) is not None

    def chooses(self, head: Head, selection: Selection) -> bool:
        """Return whether `slice` would have a part made elsewhere, as far as is known now."""
        if not selection.size or self._is_here(head):
            return False
        if self._kept.nbytes and self._kept.get(_key(head, selection)):
            return True
        planned = self._plan(head, selection)
        if planned is None:
            return False
        _, costs = planned
        if costs.choice != "slice":
            _explain(costs)
        return costs.choice == "slice"

    async def _made(self, head: Head, selection: Selection) -> MadeSlice | None:
        if not selection.size or self._is_here(head):
            return None
        if self._kept.nbytes and (made := self._kept.get(_key(head, selection))):
            self.stats.kept += 1
            return made
        planned = self._plan(head, selection)
        if planned is None:
            return None
        maker, costs = planned
        _explain(costs)
        if costs.choice == "chunks":
            self.stats.chunks += 1
            await self._follow_ups.fetch_chunks(head, selection)
        if costs.choice != "slice":
            return None
        made = await self._ask(maker, head, selection, costs)
        if made is not None:
            self._follow_ups.sliced(head, selection)
        return made

    # -- planning --------------------------------------------------------------------------------

    def _is_here(self, head: Head) -> bool:
        """Return whether all of a version is here, or there is nobody to ask for it."""
        version = self._store.find(head.path, head.etag)
        return version is not None and (version.complete or version.superseded)

    def _plan(self, head: Head, selection: Selection) -> tuple[SliceMaker, Costs] | None:
        """Return who would make a part, and what each way would cost; None where there is no choice."""
        maker, version = self._maker(head.path), self._store.find(head.path, head.etag)
        costs = None if maker is None else self._costs(maker, head, selection, version)
        return None if maker is None or costs is None else (maker, costs)

    def _costs(
        self, maker: SliceMaker, head: Head, selection: Selection, version: Version | None
    ) -> Costs | None:
        """Return what each way would cost; None where nothing is missing, or a slice is out of question."""
        round_trip_s = maker.link.round_trip_s
        if round_trip_s is None or round_trip_s < NEAR_S or self._is_paused(maker):
            return None
        if selection.size * geometry_of(head).dtype.itemsize > MOST_BYTES:
            return None
        way = Way(round_trip_s, maker.link.bytes_per_s)
        costs = estimate(way, head, selection, everything(head, selection))
        if costs.choice == "blocks":  # the more so if something is here
            return costs
        if any(other.cached_bytes for other in self._store.all_of(head.path) if other is not version):
            return None  # what did not change since an earlier version is here
        missing = self._missing(head, selection, version)
        return estimate(way, head, selection, missing) if missing.blocks else None

    def _missing(self, head: Head, selection: Selection, version: Version | None) -> Missing:
        """Return what is missing of a selection, as far as it is looked at."""
        average = everything(head, selection)
        if version is None:
            return average
        geometry = geometry_of(head)
        looked_at = unknown = nbytes = blocks = 0
        pages: dict[int, Page | None] = {}  # each is looked for once: those that are absent, on the disk
        for piece in islice(cell_pieces(geometry.grid, selection, geometry.blocksize), LOOKED_AT):
            looked_at += len(piece.blocks)
            number = head.page_of(piece.nchunk)
            if number not in pages:
                pages[number] = self._store.page(version, head, number)
            page = pages[number]
            if page is None:
                unknown += len(piece.blocks)
                continue
            extents = self._store.absent(version, block_extents(head, page, piece.nchunk, piece.blocks))
            blocks += min(len(extents), len(piece.blocks))
            nbytes += sum(extent.size for extent in extents)
        share = (blocks + unknown) / max(1, looked_at)
        more = average.blocks / max(1, looked_at)
        per_block = average.block_bytes / max(1, average.blocks)
        absent = sum(page is None for page in pages.values())
        return Missing(
            int((nbytes + unknown * per_block) * more),
            round((blocks + unknown) * more),
            math.ceil(average.ranges * share),
            int(average.chunk_bytes * share),
            average.chunks,
            absent,
            average.page_bytes * absent // max(1, average.pages),
        )

    # -- asking ----------------------------------------------------------------------------------

    async def _ask(
        self, maker: SliceMaker, head: Head, selection: Selection, costs: Costs
    ) -> MadeSlice | None:
        async def fetch(keys: Sequence[_Key]) -> dict[_Key, MadeSlice]:
            async with asyncio.timeout(LEAST_PATIENCE_S + PATIENCE * costs.slice):
                made = await maker.make(head, selection)
            self.stats.slices += 1
            self.stats.slice_bytes += made.nbytes
            self._kept.put(keys[0], made, made.nbytes)
            return {keys[0]: made}

        began = time.perf_counter()
        key = _key(head, selection)
        try:
            made = (await self._flights.get([key], fetch))[key]
        except (Caterva2Error, TimeoutError) as error:
            self._failed(head, maker, error)
            return None
        if (explanation := explained()) is not None:
            explanation.upstream_bytes += made.nbytes
            explanation.upstream_s += time.perf_counter() - began
        return made

    def _failed(self, head: Head, maker: SliceMaker | None, error: Exception) -> None:
        """Note that a slice did not come, and was not what it should be."""
        self.stats.failed += 1
        if isinstance(error, IntegrityError | Corrupt):
            self.stats.rejected += 1
        if isinstance(error, Changed | NotFound) or maker is None:
            return
        lasting = isinstance(error, IntegrityError | Corrupt | Unsupported)
        self._paused_until[maker.name] = time.monotonic() + (LONG_PAUSE_S if lasting else PAUSE_S)
        reason = str(error) or "it took too long"
        log.warning("no slice of %s from %s, fetching blocks: %s", head.path, maker.name, reason)

    def _is_paused(self, maker: SliceMaker) -> bool:
        until = self._paused_until.get(maker.name)
        if until is None:
            return False
        if until > time.monotonic():
            return True
        del self._paused_until[maker.name]
        return False


def _explain(costs: Costs) -> None:
    if (explanation := explained()) is not None:
        explanation.plans.append((costs.choice, costs))


def _key(head: Head, selection: Selection) -> _Key:
    return str(head.path), head.etag, selection
