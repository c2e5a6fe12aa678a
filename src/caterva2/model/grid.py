"""Where the elements of an n-dimensional array lie: in which chunks, in which blocks of them.

Format: an array is cut into chunks of one shape (row-major order; those at the upper edges are padded), a
chunk into blocks of one shape (likewise). See the b2nd metalayer of C-Blosc2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from caterva2.model.selection import Axis, Selection

__all__ = ["PIECE_BYTES", "Cell", "ChunkGrid", "bounded"]

PIECE_BYTES = 16 * 1024 * 1024
"""Most that a piece is decoded to, in bytes, unless one block is larger."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a selection needs of one chunk.

    Attributes
    ----------
    nchunk : int
        Number of the chunk, in row-major order.
    blocks : tuple of int
        Numbers of the blocks that hold selected elements, in row-major order of the chunk's blocks.
    box : tuple of sequence of int
        The block coordinates along each dimension, ascending; `blocks` is their product.
    source : tuple of slice
        The selected elements within the chunk.
    region : tuple of slice or of tuple of int
        The same elements within an array that is made of the blocks of `box` alone, laid side by side.
    target : tuple of slice
        Where they go in the result, before dimensions are dropped or reversed.
    """

    nchunk: int
    blocks: tuple[int, ...]
    box: tuple[Sequence[int], ...]
    source: tuple[slice, ...]
    region: tuple[slice | tuple[int, ...], ...]
    target: tuple[slice, ...]


@dataclass(frozen=True)
class ChunkGrid:
    """The grid of an array.

    Attributes
    ----------
    shape, chunks, blocks : tuple of int
        Elements along each dimension: of the array, of a chunk, of a block.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]

    @cached_property
    def chunk_counts(self) -> tuple[int, ...]:
        """Chunks along each dimension."""
        return tuple(-(-length // chunk) for length, chunk in zip(self.shape, self.chunks, strict=True))

    @cached_property
    def block_counts(self) -> tuple[int, ...]:
        """Blocks of a chunk along each dimension."""
        return tuple(-(-chunk // block) for chunk, block in zip(self.chunks, self.blocks, strict=True))

    @cached_property
    def nchunks(self) -> int:
        """Chunks of the array; 1 for 0-d arrays, 0 for empty ones."""
        return math.prod(self.chunk_counts)

    @cached_property
    def nblocks(self) -> int:
        """Blocks of each chunk."""
        return math.prod(self.block_counts)

    def cells(self, selection: Selection) -> Iterator[Cell]:
        """Yield what a selection needs, chunk by chunk in row-major order.

        Chunks and blocks that a step jumps over are left out.
        """
        along = [
            _along(axis, chunk, block)
            for axis, chunk, block in zip(selection.axes, self.chunks, self.blocks, strict=True)
        ]
        for parts in itertools.product(*along):
            chunk, box, source, region, target = zip(*parts, strict=True) if parts else _POINT
            nchunk = 0
            for coordinate, count in zip(chunk, self.chunk_counts, strict=True):
                nchunk = nchunk * count + coordinate
            yield Cell(nchunk, self._block_numbers(box), box, source, region, target)

    def pieces(self, selection: Selection, blocksize: int) -> Iterator[Cell]:
        """Do as `cells`, with cells cut that are decoded to more than `PIECE_BYTES`, unless one block is.

        Parameters
        ----------
        selection : Selection
        blocksize : int
            Size of a decoded block, in bytes.
        """
        most = max(1, PIECE_BYTES // blocksize)
        for cell in self.cells(selection):
            if len(cell.blocks) <= most:
                yield cell
            else:
                yield from bounded(self, cell, most)

    def chunk_coordinates(self, nchunk: int) -> tuple[int, ...]:
        """Return where a chunk is in the grid of chunks."""
        coordinates = []
        for count in reversed(self.chunk_counts):
            nchunk, coordinate = divmod(nchunk, count)
            coordinates.append(coordinate)
        return tuple(reversed(coordinates))

    def _block_numbers(self, box: tuple[Sequence[int], ...]) -> tuple[int, ...]:
        numbers = [0]
        for blocks, count in zip(box, self.block_counts, strict=True):
            numbers = [number * count + block for number in numbers for block in blocks]
        return tuple(numbers)


def bounded(grid: ChunkGrid, cell: Cell, most: int) -> Iterator[Cell]:
    """Cut a cell at the limits of blocks until no part has more than `most` blocks."""
    if len(cell.blocks) <= max(1, most):
        yield cell
        return
    d = max(range(len(cell.box)), key=lambda n: len(cell.box[n]))
    source = cell.source[d]
    low = cell.box[d][len(cell.box[d]) // 2] * grid.blocks[d]
    before = -(-(low - source.start) // source.step)
    for first, last in ((0, before), (before, len(range(source.start, source.stop, source.step)))):
        yield from bounded(grid, _part(grid, cell, d, first, last), most)


def _part(grid: ChunkGrid, cell: Cell, d: int, first: int, last: int) -> Cell:
    """Return the elements `first` to `last` of a cell along a dimension."""
    axes = []
    chunk = grid.chunk_coordinates(cell.nchunk)
    for n, source in enumerate(cell.source):
        count = len(range(source.start, source.stop, source.step))
        begin, end = (first, last) if n == d else (0, count)
        start = chunk[n] * grid.chunks[n] + source.start + begin * source.step
        axes.append(Axis(start, end - begin, source.step))
    (part,) = grid.cells(Selection(tuple(axes)))
    target = list(cell.target)
    target[d] = slice(target[d].start + first, target[d].start + last)
    return replace(part, target=tuple(target))


# of one chunk along an axis: its coordinate, the blocks, and then as in a `Cell`
_Part = tuple[int, Sequence[int], slice, slice | tuple[int, ...], slice]

_POINT: tuple[tuple[()], ...] = ((),) * 5
"""The parts of no axis: what an array without dimensions is made of."""


def _along(axis: Axis, chunk: int, block: int) -> list[_Part]:
    """Return the parts of an axis, one for each chunk that holds one of its indices."""
    parts: list[_Part] = []
    step, count = axis.step, axis.count
    first = 0  # number, along the axis, of the first index that is in none of them
    while first < count:
        coordinate, start = divmod(axis.start + first * step, chunk)
        left = count - 1 - first
        more = min(left, (chunk - 1 - start) // step)  # further indices in the same chunk
        source = slice(start, start + more * step + 1, step)
        stop = first + more + 1
        parts.append((coordinate, *_within(source, block), slice(first, stop)))
        first = stop
    return parts


def _within(source: slice, block: int) -> tuple[Sequence[int], slice, slice | tuple[int, ...]]:
    """Return the blocks that a slice of a chunk touches, the slice, and the slice within those blocks."""
    start, stop, step = source.start, source.stop, source.step
    if step <= block:  # touches every block on its way
        first = start // block
        base = first * block
        return range(first, (stop - 1) // block + 1), source, slice(start - base, stop - base, step)
    indices = range(start, stop, step)  # each in a block of its own
    hit = tuple(index // block for index in indices)
    return hit, source, tuple(n * block + index % block for n, index in enumerate(indices))
