"""From pieces of a selection to its elements: extents are read in batches, and decoded while others are read.

Small reads are done at once where handing them to a thread would take longer, and wait behind no large one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.frame.decode import block_extents, place_blocks
from caterva2.frame.geometry import geometry_of
from caterva2.frame.library import is_ready
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.source.batch import Batch
from caterva2.source.decoded import Decoded
from caterva2.source.plan import CellPiece, Keep, Piece
from caterva2.source.protocol import Source

__all__ = ["SMALL_PIECES", "Decoding", "is_small"]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has

PLAN_PIECES = 128
"""Pieces are planned so many at a time: a millisecond or two on the event loop."""

SHARE_BYTES = 512 * 1024
"""It pays to give another thread this much to decode, in bytes."""

INLINE_BYTES = 1024 * 1024
"""So much is decoded on the loop, in bytes: that takes a millisecond, and threads would not be faster."""

SMALL_BYTES = 4 * 1024 * 1024
"""A read of blocks of this size in all, in bytes, is small: it waits behind no large one."""

SMALL_PIECES = 16
"""More pieces are no small read."""


class Decoding:
    """Writes pieces of selections where they belong.

    Parameters
    ----------
    source : Source
    decoded : Decoded
        Blocks that are kept.
    executor, large : Executor
        Where small reads are decoded that are not done on the loop, and where all others are.
    """

    def __init__(self, source: Source, decoded: Decoded, executor: Executor, large: Executor) -> None:
        self._source = source
        self._decoded = decoded
        self._executor = executor
        self._large = large
        self._threads = max(1, os.cpu_count() or 1)

    def without_kept(self, head: Head, pieces: Iterable[CellPiece], out: Array) -> list[CellPiece]:
        """Write those pieces to `out` whose blocks are kept decoded, and return the others."""
        if not self._decoded.limit_bytes:
            return list(pieces)
        left = []
        for piece in pieces:
            found = self._decoded.get(head, piece.nchunk, piece.blocks)
            if found is None:
                left.append(piece)
            else:
                place_blocks(head, piece.cell, found, out)
        return left

    @property
    def _keep(self) -> Keep | None:
        return self._decoded.put if self._decoded.limit_bytes else None

    async def small(self, head: Head, pieces: Sequence[CellPiece], out: Array) -> None:
        """Decode a few pieces into `out`, without waiting for a thread if there is little to do."""
        geometry = geometry_of(head)
        pages = await self._pages(head, pieces)
        batch = Batch(last=True)
        for piece in pieces:
            page = pages[head.page_of(piece.nchunk)]
            extents = block_extents(head, page, piece.nchunk, piece.blocks)
            batch.add(piece, page, extents, len(piece.blocks) * geometry.blocksize)
        parts = await self._source.read(head, batch.extents) if batch.extents else []
        if batch.decoded > INLINE_BYTES or not geometry.by_block or not is_ready():
            await self._decode(head, batch, parts, out, self._executor)
        elif batch.work:
            _decode_share(head, batch.work, parts, out, self._keep)

    async def large(self, head: Head, pieces: Iterator[CellPiece], out: Array) -> None:
        """Decode pieces into `out` as far as they are not kept decoded."""
        if self._decoded.stats.cached_bytes:
            loop = asyncio.get_running_loop()
            left = await loop.run_in_executor(self._large, self.without_kept, head, pieces, out)
            if not left:
                return
            pieces = iter(left)
        await self.fill(head, pieces, out)

    async def fill(
        self, head: Head, pieces: Iterator[Piece], out: Array, *, plan_in_thread: bool = False
    ) -> None:
        """Decode pieces into `out`; the next batch is read while one is decoded."""
        ahead: asyncio.Task[tuple[Batch, list[bytes]]] | None = None
        async with aclosing(self.batches(head, pieces, plan_in_thread)) as batches:
            try:
                batch, parts = await self._read(head, batches)
                while True:
                    if not batch.last:
                        ahead = asyncio.create_task(self._read(head, batches))
                    await self._decode(head, batch, parts, out, self._large)
                    if ahead is None:
                        return
                    batch, parts = await ahead
                    ahead = None
            finally:
                if ahead is not None:  # failed or cancelled: the generator must be at rest to be closed
                    ahead.cancel()
                    await asyncio.gather(ahead, return_exceptions=True)

    async def _read(self, head: Head, batches: AsyncGenerator[Batch]) -> tuple[Batch, list[bytes]]:
        batch = await anext(batches)
        parts = await self._source.read(head, batch.extents) if batch.extents else []
        return batch, parts

    async def batches(
        self, head: Head, pieces: Iterator[Piece], plan_in_thread: bool
    ) -> AsyncGenerator[Batch]:
        """Yield batches; the last one, possibly empty, says so."""
        blocksize = geometry_of(head).blocksize
        batch = Batch()
        while True:
            if plan_in_thread:
                loop = asyncio.get_running_loop()
                group = await loop.run_in_executor(self._executor, _take, pieces)
            else:
                group = _take(pieces)
            pages = await self._pages(head, group)
            for piece in group:
                page = pages[head.page_of(piece.nchunk)]
                extents = block_extents(head, page, piece.nchunk, piece.blocks)
                if batch.full:
                    yield batch
                    batch = Batch()
                batch.add(piece, page, extents, len(piece.blocks) * blocksize)
            if len(group) < PLAN_PIECES:
                batch.last = True
                yield batch
                return

    async def _pages(self, head: Head, pieces: Sequence[Piece]) -> dict[int, Page]:
        numbers = head.pages_of({piece.nchunk for piece in pieces})
        return dict(zip(numbers, await self._source.pages(head, numbers), strict=True)) if numbers else {}

    async def _decode(
        self, head: Head, batch: Batch, parts: list[bytes], out: Array, executor: Executor
    ) -> None:
        if not batch.work:
            return
        loop = asyncio.get_running_loop()
        shares = min(self._threads, len(batch.work), 1 + batch.decoded // SHARE_BYTES)
        await asyncio.gather(
            *(
                loop.run_in_executor(
                    executor, _decode_share, head, batch.work[n::shares], parts, out, self._keep
                )
                for n in range(shares)
            )
        )


def is_small(pieces: Sequence[Piece], blocksize: int) -> bool:
    """Return whether pieces of blocks of a size, in bytes, are all together a small read."""
    return len(pieces) <= SMALL_PIECES and sum(len(p.blocks) for p in pieces) * blocksize <= SMALL_BYTES


def _take(pieces: Iterator[Piece]) -> list[Piece]:
    return list(islice(pieces, PLAN_PIECES))


def _decode_share(
    head: Head,
    work: Sequence[tuple[Piece, Page, list[int]]],
    parts: list[bytes],
    out: Array,
    keep: Keep | None,
) -> None:
    most = max(len(piece.blocks) for piece, _, _ in work)
    scratch = np.empty(most * geometry_of(head).blocksize, np.uint8) if len(work) > 1 else None
    for piece, page, places in work:
        piece.decode(head, page, [parts[place] for place in places], out, keep=keep, scratch=scratch)
