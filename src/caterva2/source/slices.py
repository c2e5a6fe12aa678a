"""Reads of slices, points, items and chunks over any source.

The way of a read: plan it in pieces (`caterva2.source.plan`), take what is kept decoded
(`caterva2.source.decoded`), get the pages that say where the bytes of the rest are, read extents in batches
of bounded size, decode each batch in threads while the next one is read (`caterva2.source.decoding`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import aclosing, asynccontextmanager
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caterva2.errors import InvalidSelection, NotFound, TooLarge
from caterva2.frame.decode import place_blocks
from caterva2.frame.geometry import geometry_of, typesize_of
from caterva2.frame.library import get_ready
from caterva2.frame.runs import stored_special
from caterva2.model.extents import ChunkKind, Extent
from caterva2.model.manifest import Head
from caterva2.model.selection import Axis, Selection, select
from caterva2.source.budget import Budget
from caterva2.source.decoded import Decoded
from caterva2.source.decoding import SMALL_PIECES, Decoding, is_small
from caterva2.source.plan import CellPiece, cell_pieces, point_pieces
from caterva2.source.planner import blocks_touched
from caterva2.source.points import parse_points
from caterva2.source.protocol import Source
from caterva2.source.slabs import Slab, slabs

__all__ = ["Reader", "SliceSource"]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has

MOST_DECODED_BYTES = 256 * 1024 * 1024
"""Larger parts are sent as they are stored to who takes that, also if they were used before."""

HELD_BYTES = 256 * 1024 * 1024
"""Most that is made in one piece, in bytes; slices in slabs, or parts, may be larger."""

SLAB_BYTES = 8 * 1024 * 1024
"""Large answers are made in slabs of about this size, in bytes."""

SLABS_AHEAD = 2
"""What so many slabs need is fetched while one is sent: a slow link is kept busy where one ends."""

BUDGET_BYTES = 48 * 1024 * 1024
"""Most that the large answers being made or sent take at one time, in bytes; compressed parts come on top."""


class SliceSource(Protocol):
    """Where parts of arrays may come from as they are, see `caterva2.cache.slices.Slices`."""

    async def slice(self, head: Head, selection: Selection) -> Array | None:
        """Return a part of ``selection.counts``; None if it is to be read by extents."""
        ...

    def chooses(self, head: Head, selection: Selection) -> bool:
        """Return whether that is how a part would be read now."""
        ...

    async def prepare(self, head: Head, selection: Selection) -> bool:
        """Have a part at hand for `slice`; return whether it is, or its extents are to be prepared."""
        ...


class Reader:
    """Reads parts of versions from a source.

    Parameters
    ----------
    source : Source
    executor : Executor
        Where small reads are decoded that are not done on the loop.
    large : Executor, optional
        Where all others are decoded: so that small ones do not wait behind them.
    limit_bytes : int
        Largest answer that is made, in bytes.
    decoded_bytes : int
        Most that decoded blocks take that are kept for small reads, in bytes.
    made : SliceSource, optional
        Is asked first for parts of arrays.

    Attributes
    ----------
    budget : Budget
        Memory of the large answers that are being made or sent.
    decoded : Decoded
        Blocks that are kept.
    """

    def __init__(
        self,
        source: Source,
        executor: Executor,
        large: Executor | None = None,
        *,
        limit_bytes: int,
        decoded_bytes: int = 0,
        made: SliceSource | None = None,
    ) -> None:
        self._source = source
        self._made = made
        self._executor = executor
        self._limit_bytes = limit_bytes
        self._readying: Future[None] | None = None
        self.budget = Budget(BUDGET_BYTES)
        self.decoded = Decoded(decoded_bytes)
        self._decoding = Decoding(source, self.decoded, executor, large or executor)

    def get_ready(self) -> None:
        """Have what decodes imported in a thread: the first read need not wait for it."""
        self._readying = self._executor.submit(get_ready)

    async def ready(self) -> None:
        """Return once that is there, if it is on its way."""
        if self._readying is not None:
            await asyncio.wrap_future(self._readying)

    async def array(self, head: Head, selection: Selection) -> Array:
        """Return a part of an array.

        Parameters
        ----------
        head : Head
            The version. Of a plain frame or a file, bytes are selected.
        selection : Selection
            Of the array's shape.

        Returns
        -------
        ndarray, shape ``selection.shape``
            Not necessarily contiguous.

        Raises
        ------
        TooLarge
            If it would pass the limit, or `HELD_BYTES`; nothing was read then.
        Corrupt, Unsupported
            If the chunks cannot be decoded.
        NotFound, Changed, Unavailable, IntegrityError
            As the source.
        """
        geometry = geometry_of(head)
        self._check_held(selection.size * geometry.dtype.itemsize)
        out = np.empty(selection.counts, geometry.dtype)
        first, pieces = self._begun(head, selection)
        small = is_small(first, geometry.blocksize)
        if small and not (first := self._decoding.without_kept(head, first, out)):
            return _as_asked(out, selection)
        if (made := await self.made(head, selection)) is not None:
            return made
        if small:
            await self._decoding.small(head, first, out)
        else:
            await self._decoding.large(head, chain(first, pieces), out)
        return _as_asked(out, selection)

    def kept(self, head: Head, selection: Selection) -> Array | None:
        """Return a small part of an array whose blocks are all kept decoded; otherwise None.

        Parameters
        ----------
        head, selection
            As for `array`.
        """
        geometry = geometry_of(head)
        if not self.decoded.stats.cached_bytes or not selection.size:
            return None
        pieces, _ = self._begun(head, selection)
        if not is_small(pieces, geometry.blocksize):
            return None
        out = np.empty(selection.counts, geometry.dtype)
        for piece in pieces:
            found = self.decoded.get(head, piece.nchunk, piece.blocks)
            if found is None:
                return None
            place_blocks(head, piece.cell, found, out)
        return _as_asked(out, selection)

    def _begun(self, head: Head, selection: Selection) -> tuple[list[CellPiece], Iterator[CellPiece]]:
        """Return the first pieces of a selection, one more than a small read may have, and the others."""
        geometry = geometry_of(head)
        pieces = cell_pieces(geometry.grid, selection, geometry.blocksize) if selection.size else iter(())
        return list(islice(pieces, SMALL_PIECES + 1)), pieces

    async def made(self, head: Head, selection: Selection) -> Array | None:
        """Return a part of an array that is made elsewhere, where that is best; None if it is to be read.

        Parameters
        ----------
        head, selection
            As for `array`.
        """
        if self._made is None or head.kind != "array":
            return None
        out = await self._made.slice(head, selection)
        return None if out is None else _as_asked(out, selection)

    def is_made(self, head: Head, selection: Selection) -> bool:
        """Return whether `made` is going to return a part, as far as is known."""
        return self._made is not None and head.kind == "array" and self._made.chooses(head, selection)

    async def slabs(self, head: Head, selection: Selection) -> AsyncGenerator[Selection]:
        """Cut a large part of an array into slabs, to be read one after the other by `slab`.

        What a slab needs is at hand when it comes, as far as the source can keep it. While it is sent, what
        the next ones need is fetched.

        Parameters
        ----------
        head, selection
            As for `array`.

        Yields
        ------
        Selection
            In C order, their elements one slab after the other are those of the selection.

        Raises
        ------
        TooLarge
            If it would pass the limit.
        NotFound, Changed, Unavailable, IntegrityError
            As the source.
        """
        geometry = geometry_of(head)
        itemsize = geometry.dtype.itemsize
        self.check(selection.size * itemsize)
        parts = slabs(geometry.grid, selection, itemsize, SLAB_BYTES)
        ahead: deque[tuple[Selection, asyncio.Task[None]]] = deque()

        def begin(count: int) -> None:
            for part in islice(parts, count):
                ahead.append((part, asyncio.create_task(self._prepare(head, part))))

        begin(1)
        try:
            while ahead:
                part, preparing = ahead[0]
                await preparing
                ahead.popleft()
                begin(SLABS_AHEAD - len(ahead))
                yield part
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def _prepare(self, head: Head, part: Selection) -> None:
        async def groups() -> AsyncGenerator[Sequence[Extent]]:
            geometry = geometry_of(head)
            pieces = cell_pieces(geometry.grid, part, geometry.blocksize)
            async with aclosing(self._decoding.batches(head, pieces, plan_in_thread=False)) as batches:
                async for batch in batches:
                    yield batch.extents

        if not part.size:
            return
        if self._made is None or not await self._made.prepare(head, part):
            await self._source.prepare(head, groups())

    @asynccontextmanager
    async def slab(self, head: Head, selection: Selection, field: str | None = None) -> AsyncIterator[Slab]:
        """Read a slab within the budget, and hold it while inside, or until others need its memory.

        Parameters
        ----------
        head, selection
            As for `array`.
        field : str, optional
            Of a structured dtype.

        Yields
        ------
        Slab

        Raises
        ------
        TooLarge, Corrupt, Unsupported, NotFound, Changed, Unavailable, IntegrityError
            As for `array`.
        """
        with await self.budget.lease(selection.size * geometry_of(head).dtype.itemsize) as lease:
            slab = Slab(await self._contiguous(head, selection, field))
            lease.revocable(slab.free)
            try:
                yield slab
            finally:
                slab.free()

    async def _contiguous(self, head: Head, selection: Selection, field: str | None) -> Array:
        array = await self.array(head, selection)
        if field is not None:
            array = array[field]
        if array.flags.c_contiguous:
            return array
        return await asyncio.get_running_loop().run_in_executor(self._executor, np.ascontiguousarray, array)

    async def points(self, head: Head, key: tuple[int | slice | list[Any], ...]) -> Array:
        """Return points of an array, as numpy's fancy indexing.

        Parameters
        ----------
        head : Head
        key : tuple of int, slice or (nested) list of int
            Dimensions left out are selected whole.

        Returns
        -------
        ndarray
            Of the shape that numpy gives.

        Raises
        ------
        InvalidSelection
            If the key is malformed or out of bounds.
        TooLarge, Corrupt, Unsupported, NotFound, Changed, Unavailable, IntegrityError
            As for `array`.
        """
        geometry = geometry_of(head)
        loop = asyncio.get_running_loop()
        grid = geometry.grid
        parsed = await loop.run_in_executor(self._executor, parse_points, key, grid.shape)
        if parsed is None:
            return await self.array(head, select(key, grid.shape))
        counts = parsed.counts
        size = 1
        for count in counts:
            size *= count
        self._check_held(size * geometry.dtype.itemsize)
        out = np.empty(counts, geometry.dtype)
        if size:
            pieces = point_pieces(grid, parsed.points, parsed.slices, geometry.blocksize)
            await self._decoding.fill(head, pieces, out, plan_in_thread=True)
        return parsed.arrange(out)

    async def items(self, head: Head, start: int, stop: int) -> bytes:
        """Return items of a plain frame.

        Parameters
        ----------
        head : Head
        start, stop : int
            ``0 <= start <= stop <= number of items``.

        Raises
        ------
        InvalidSelection
            If the limits are out of bounds.
        TooLarge, Corrupt, Unsupported, NotFound, Changed, Unavailable, IntegrityError
            As for `array`.
        """
        typesize, nbytes = typesize_of(head), geometry_of(head).grid.shape[0]
        if not 0 <= start <= stop <= -(-nbytes // typesize):
            raise InvalidSelection(f"items {start}:{stop} of {head.path}, which has {nbytes // typesize}")
        begin, end = start * typesize, min(nbytes, stop * typesize)
        found = await self.array(head, Selection((Axis(begin, end - begin),)))
        return found.tobytes()

    async def chunk(self, head: Head, nchunk: int) -> bytes:
        """Return a chunk as it is stored; for one that has no bytes, one is made.

        Raises
        ------
        NotFound
            If there is no such chunk, or the dataset is no frame.
        TooLarge, Corrupt, Unsupported, Changed, Unavailable, IntegrityError
            As for `array`.
        """
        if head.kind == "file" or not 0 <= nchunk < head.nchunks:
            count = 0 if head.kind == "file" else head.nchunks
            raise NotFound(str(head.path), f"{head.path} has {count} chunks, there is no chunk {nchunk}")
        (page,) = await self._source.pages(head, [head.page_of(nchunk)])
        if page.kind(nchunk) > ChunkKind.BLOCKS:
            return stored_special(head, page, nchunk)
        self._check_held(int(page.sizes[nchunk - page.first]))
        slack = page.chunk_slack(nchunk)
        parts = await self._source.read(head, [e for e in page.chunk_extents(nchunk) if e != slack])
        if len(parts) == 1:
            return parts[0]
        return await asyncio.get_running_loop().run_in_executor(self._executor, b"".join, parts)

    # -- how ---------------------------------------------------------------------------------------

    def check(self, nbytes: int) -> None:
        """Raise `TooLarge` if an answer of `nbytes` would pass the limit."""
        if nbytes > self._limit_bytes:
            raise TooLarge(nbytes, self._limit_bytes)

    def _check_held(self, nbytes: int) -> None:
        limit_bytes = min(self._limit_bytes, HELD_BYTES)
        if nbytes > limit_bytes:
            raise TooLarge(nbytes, limit_bytes)

    def decodes(self, head: Head, selection: Selection, *, near: bool) -> bool:
        """Return whether a part is better decoded here than sent as it is stored; note that it is used.

        What is asked for again is decoded here, once, and kept for all, where that is no more to send. On
        this machine sending is cheap: there it also pays where half of what is decoded is not wanted.

        Parameters
        ----------
        head : Head
            Of an array.
        selection : Selection
        near : bool
            Whether bytes cost nothing.
        """
        geometry = geometry_of(head)
        grid, blocksize = geometry.grid, geometry.blocksize
        touched = blocks_touched(grid, selection)
        decoded_bytes = touched * blocksize
        pays_bytes = touched * head.size // max(1, grid.nchunks * grid.nblocks)
        if near:
            pays_bytes = max(pays_bytes, decoded_bytes // 2)
        if selection.size * geometry.dtype.itemsize > pays_bytes:
            return False
        if decoded_bytes > min(self.decoded.limit_bytes // 2, MOST_DECODED_BYTES):
            return False
        used = [
            self.decoded.used_before(head, cell.nchunk, cell.blocks, blocksize)
            for cell in grid.pieces(selection, blocksize)
        ]
        return all(used)


def _as_asked(out: Array, selection: Selection) -> Array:
    """Return what was read in increasing order of index as it was selected."""
    if any(axis.reverse for axis in selection.axes):
        out = out[tuple(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes)]
    return out.reshape(selection.shape)
