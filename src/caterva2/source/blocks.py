"""Parts of arrays as blocks as they are stored, for clients that decode: whether that pays, and what it is.

An answer is a record for each cell of the selection, in row-major order: its size and a Blosc2 chunk with the
blocks of the cell; see `caterva2.frame.sent`. Its length is known from the pages of the manifest before any
byte of it is read.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from caterva2.frame.geometry import geometry_of
from caterva2.frame.sent import can_be_sent, compact_record, record, record_extents, record_size
from caterva2.model.batched import batched
from caterva2.model.extents import Extent
from caterva2.model.grid import Cell
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.selection import Selection
from caterva2.source.budget import Budget
from caterva2.source.planner import chunks_touched
from caterva2.source.protocol import Source

__all__ = ["BlockPlan", "BlockReader", "pays"]

SMALL_BYTES = 256 * 1024
"""So much stored is sent whatever it is decoded to, in bytes."""

STORED_PER_RESULT = 4
"""Most that is sent for each byte of the result, in bytes, where it is more than `SMALL_BYTES`."""

MAX_CELLS = 1024
"""Most cells of an answer: all of them are looked at before it begins."""

KEPT_CELLS = 8
KEPT_BLOCKS = 64
"""Of so few cells, and of so many blocks of each at most, the extents are kept from the plan to the read."""

PLAN_CELLS = 64
"""So many are, before others have their turn: a millisecond on the event loop."""

GROUP_BYTES = 4 * 1024 * 1024
"""So much of an answer is fetched at once, in bytes; the next group is fetched while one is sent."""

READ_BYTES = 1024 * 1024
"""So much of a group is read at once, in bytes: others have their turn between two reads."""

PIECE_BYTES = 512 * 1024
"""So much of a group is sent at once, in bytes."""

_SIZE = struct.Struct("<I")


def pays(stored_bytes: int, result_bytes: int) -> bool:
    """Return whether a part of an array is better sent as it is stored than decoded.

    Decoding costs more than sending, and there are more clients to do it than servers. But of a thin plane
    across chunks the blocks are many times what is wanted of them: then the network would be the bottleneck,
    and the client would have to decode as much as the server.
    """
    return stored_bytes <= max(SMALL_BYTES, STORED_PER_RESULT * result_bytes)


class _Record(NamedTuple):
    cell: Cell
    page: Page
    extents: Sequence[Extent] | None  # None where they are worked out once more when they are read
    size: int

    def needs(self, head: Head) -> Sequence[Extent]:
        """Return the extents that it is made of."""
        return record_extents(head, self.page, self.cell) if self.extents is None else self.extents


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """What is to be sent of a version.

    Attributes
    ----------
    head : Head
    records : list
    nbytes : int
        Length of the answer, in bytes, if it is not made by `BlockReader.small`.
    """

    head: Head
    records: list[_Record]
    nbytes: int

    @property
    def is_small(self) -> bool:
        """Whether it can be made at once."""
        return self.nbytes - _SIZE.size * len(self.records) <= SMALL_BYTES


class BlockReader:
    """Reads blocks of arrays as they are stored.

    Parameters
    ----------
    source : Source
    budget : Budget
        For what waits to be sent.
    """

    def __init__(self, source: Source, budget: Budget) -> None:
        self._source = source
        self._budget = budget

    async def plan(self, head: Head, selection: Selection) -> BlockPlan | None:
        """Find out what is to be sent of an array.

        Parameters
        ----------
        head : Head
        selection : Selection
            Of the array's shape.

        Returns
        -------
        BlockPlan or None
            None where it does not pay, or cannot be done: the blocks of this array cannot be decoded on their
            own, or there are too many cells.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError, Corrupt, Unsupported
            As the source.
        """
        geometry = geometry_of(head)
        result_bytes = selection.size * geometry.dtype.itemsize
        touched = chunks_touched(geometry.grid, selection)
        if not can_be_sent(head) or touched > MAX_CELLS:
            return None
        records: list[_Record] = []
        stored = 0
        cells = geometry.grid.pieces(selection, geometry.blocksize)
        while some := list(islice(cells, PLAN_CELLS)):
            for one in await self._sized(head, some, keep=touched <= KEPT_CELLS):
                records.append(one)
                stored += one.size
            if not pays(stored, result_bytes) or len(records) > MAX_CELLS:
                return None
            if len(some) == PLAN_CELLS:
                await asyncio.sleep(0)
        return BlockPlan(head, records, stored + _SIZE.size * len(records))

    async def _sized(self, head: Head, cells: Sequence[Cell], *, keep: bool) -> list[_Record]:
        """Return the records of cells; with their extents, if they are to be kept."""
        numbers = [head.page_of(cell.nchunk) for cell in cells]
        wanted = sorted(set(numbers))
        pages = dict(zip(wanted, await self._source.pages(head, wanted), strict=True))
        records: list[_Record] = []
        for cell, number in zip(cells, numbers, strict=True):
            page = pages[number]
            extents = record_extents(head, page, cell) if keep and len(cell.blocks) <= KEPT_BLOCKS else None
            records.append(_Record(cell, page, extents, record_size(head, page, cell, extents)))
        return records

    async def small(self, plan: BlockPlan) -> bytes:
        """Return a small answer, of which nothing is sent that is not wanted, where that can be told.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError, Corrupt
            As the source.
        """
        return b"".join(await self._read(plan.head, plan.records, compact=True))

    async def pieces(self, plan: BlockPlan) -> AsyncGenerator[bytes]:
        """Yield an answer in pieces.

        What waits to be sent is freed, and read again, if others need the memory.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError, Corrupt
            As the source.
        """
        ahead: asyncio.Task[None] | None = None
        groups = batched(plan.records, GROUP_BYTES)
        group = next(groups, None)
        try:
            while group is not None:
                if ahead is not None:
                    await ahead
                following = next(groups, None)
                ahead = asyncio.create_task(self._prepare(plan.head, following)) if following else None
                for run in batched(group, READ_BYTES):
                    async with aclosing(self._sent(plan.head, run)) as pieces:
                        async for piece in pieces:
                            yield piece
                group = following
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _sent(self, head: Head, run: Sequence[_Record]) -> AsyncGenerator[bytes]:
        nbytes, sent = sum(_SIZE.size + one.size for one in run), 0
        while sent < nbytes:
            with await self._budget.lease(nbytes) as lease:
                waiting = _cut(await self._read(head, run), sent)
                lease.revocable(waiting.clear)
                while waiting:
                    piece = b"".join(waiting.popleft())
                    sent += len(piece)
                    yield piece

    async def _prepare(self, head: Head, group: Sequence[_Record]) -> None:
        async def extents() -> AsyncGenerator[Sequence[Extent]]:
            for one in group:
                yield one.needs(head)

        await self._source.prepare(head, extents())

    async def _read(
        self, head: Head, group: Sequence[_Record], *, compact: bool = False
    ) -> list[bytes | memoryview]:
        """Return records with their sizes, in parts."""
        wanted = [one.needs(head) for one in group]
        extents = [extent for some in wanted for extent in some]
        read = iter(await self._source.read(head, extents) if extents else ())
        blocksize = geometry_of(head).blocksize
        found: list[bytes | memoryview] = []
        for one, some in zip(group, wanted, strict=True):
            parts = record(head, one.page, one.cell, list(islice(read, len(some))))
            if compact and len(some) == 1:  # a whole chunk
                parts = [compact_record(parts[0], one.cell.blocks, blocksize)]
            found.append(_SIZE.pack(sum(map(len, parts))))
            found.extend(parts)
        return found


def _cut(parts: Sequence[bytes | memoryview], sent: int) -> deque[list[bytes | memoryview]]:
    """Return what is left of some parts when so many bytes are sent, in runs of about `PIECE_BYTES`."""
    pieces: deque[list[bytes | memoryview]] = deque()
    waiting: list[bytes | memoryview] = []
    nbytes = 0
    for part in parts:
        left = part[sent:] if sent else part
        sent = max(0, sent - len(part))
        waiting.append(left)
        nbytes += len(left)
        if nbytes >= PIECE_BYTES:
            pieces.append(waiting)
            waiting, nbytes = [], 0
    if nbytes:
        pieces.append(waiting)
    return pieces
