"""What a read needs, in pieces of bounded size.

A `Piece` is some blocks of one chunk, and what to do with them once they are decoded: write a cell of a
selection (`CellPiece`), or gather points (`PointsPiece`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caterva2.frame.decode import decode_blocks, decode_stored, place_cell
from caterva2.model.grid import Cell, ChunkGrid, bounded
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.selection import Axis, Selection

__all__ = ["CellPiece", "Piece", "PointsPiece", "bounded", "cell_pieces", "point_pieces"]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has
Scratch = npt.NDArray[np.uint8]
Keep = Callable[[Head, int, Sequence[int], memoryview], None]
Indices = npt.NDArray[np.int64]

POINTS_PIECE_BYTES = 4 * 1024 * 1024
"""The same for pieces of points, which need index arrays as well."""

POINTS_PIECE_ELEMENTS = 256 * 1024
"""Most elements that a piece of points writes, unless one point has more."""


class Piece(Protocol):
    """Some blocks of a chunk and what to do with them."""

    @property
    def nchunk(self) -> int:
        """Number of the chunk."""
        ...

    @property
    def blocks(self) -> Sequence[int]:
        """Numbers of the blocks, ascending."""
        ...

    def decode(
        self,
        head: Head,
        page: Page,
        parts: Sequence[bytes],
        out: Array,
        *,
        keep: Keep | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        """Decode the blocks and write what is wanted of them to `out`. Blocking.

        Parameters
        ----------
        head, page, parts, out
            As for `caterva2.frame.decode.decode_blocks`.
        keep : callable, optional
            Is given what was decoded, which it must copy.
        scratch : ndarray of uint8, optional
            As for `caterva2.frame.decode.decode_stored`.

        Raises
        ------
        Corrupt, Unsupported
            As `caterva2.frame.decode.decode_blocks`.
        """
        ...


@dataclass(frozen=True, slots=True)
class CellPiece:
    """A cell of a selection, or a part of one."""

    cell: Cell

    @property
    def nchunk(self) -> int:
        """Number of the chunk."""
        return self.cell.nchunk

    @property
    def blocks(self) -> Sequence[int]:
        """Numbers of the blocks, ascending."""
        return self.cell.blocks

    def decode(
        self,
        head: Head,
        page: Page,
        parts: Sequence[bytes],
        out: Array,
        *,
        keep: Keep | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        """Write ``out[cell.target]``."""
        found = decode_stored(head, page, self.nchunk, self.blocks, parts, scratch=scratch)
        if keep is not None and isinstance(found, memoryview):
            keep(head, self.nchunk, self.blocks, found)
        place_cell(head, self.cell, found, out)


@dataclass(frozen=True, slots=True)
class PointsPiece:
    """Points of one chunk.

    Attributes
    ----------
    nchunk : int
    blocks : tuple of int
    coordinates : tuple of ndarray of int64
        Within the chunk, one for each dimension; they broadcast to the elements written.
    target : tuple
        Where these go: an index array over the points, then a slice for each sliced dimension.
    grid : ChunkGrid
    """

    nchunk: int
    blocks: tuple[int, ...]
    coordinates: tuple[Indices, ...]
    target: tuple[Any, ...]  # Any: what numpy takes as a key
    grid: ChunkGrid

    def decode(
        self,
        head: Head,
        page: Page,
        parts: Sequence[bytes],
        out: Array,
        *,
        keep: Keep | None = None,  # noqa: ARG002  # points are spread: few are asked for again
        scratch: Scratch | None = None,  # noqa: ARG002  # few blocks: their own memory is small
    ) -> None:
        """Write ``out[target]``."""
        elements = decode_blocks(head, page, self.nchunk, self.blocks, parts)
        numbers: Indices = np.zeros((), np.int64)
        for values, block, count in zip(
            self.coordinates, self.grid.blocks, self.grid.block_counts, strict=True
        ):
            numbers = numbers * count + values // block
        rows = np.searchsorted(np.array(self.blocks), numbers)
        within = [values % block for values, block in zip(self.coordinates, self.grid.blocks, strict=True)]
        out[self.target] = elements[(rows, *within)]


def cell_pieces(grid: ChunkGrid, selection: Selection, blocksize: int) -> Iterator[CellPiece]:
    """Yield what a selection needs, chunk by chunk.

    Parameters
    ----------
    grid : ChunkGrid
    selection : Selection
        Of the grid's shape.
    blocksize : int
        Size of a decoded block, in bytes.
    """
    yield from map(CellPiece, grid.pieces(selection, blocksize))


def point_pieces(
    grid: ChunkGrid, points: dict[int, Indices], slices: dict[int, Axis], blocksize: int
) -> Iterator[PointsPiece]:
    """Yield what points need, chunk by chunk.

    Parameters
    ----------
    grid : ChunkGrid
    points : dict
        For each dimension that is indexed by points, the index of each point: ndarray of shape (npoints,).
    slices : dict
        For each other dimension, what is selected of it.
    blocksize : int
        Size of a decoded block, in bytes.
    """
    chunk_strides = _strides(grid.chunk_counts)
    block_strides = _strides(grid.block_counts)
    chunks = _total(index // grid.chunks[d] * chunk_strides[d] for d, index in points.items())
    blocks = _total(
        index % grid.chunks[d] // grid.blocks[d] * block_strides[d] for d, index in points.items()
    )
    order = np.lexsort((blocks, chunks))
    across = _sub_grid(grid, slices)
    most = max(1, POINTS_PIECE_BYTES // blocksize)
    for whole in across.cells(Selection(tuple(slices.values()))):
        for cell in bounded(across, whole, most):
            cross_chunk = _renumber((cell.nchunk,), across.chunk_counts, slices, chunk_strides)[0]
            cross_blocks = _renumber(cell.blocks, across.block_counts, slices, block_strides)
            elements = np.prod([len(range(s.start, s.stop, s.step)) for s in cell.source], dtype=np.int64)
            room = max(1, most // len(cross_blocks)), max(1, POINTS_PIECE_ELEMENTS // int(elements))
            for run in _runs(order, chunks, blocks, *room):
                needed = np.unique(blocks[run][:, None] + cross_blocks)
                yield PointsPiece(
                    int(chunks[run[0]] + cross_chunk),
                    tuple(needed.tolist()),
                    _coordinates(grid, points, slices, cell, run),
                    (run, *cell.target),
                    grid,
                )


def _sub_grid(grid: ChunkGrid, slices: Iterable[int]) -> ChunkGrid:
    kept = list(slices)
    return ChunkGrid(*(tuple(lengths[d] for d in kept) for lengths in (grid.shape, grid.chunks, grid.blocks)))


def _strides(counts: Sequence[int]) -> list[int]:
    strides, stride = [], 1
    for count in reversed(counts):
        strides.append(stride)
        stride *= count
    return strides[::-1]


def _total(terms: Iterable[Indices]) -> Indices:
    first, *rest = terms
    return sum(rest, start=first)


def _renumber(
    numbers: Sequence[int], counts: tuple[int, ...], dims: Iterable[int], strides: list[int]
) -> Indices:
    """Return numbers within the sliced dimensions as what they add to numbers within all dimensions."""
    if not counts:
        return np.zeros(len(numbers), np.int64)
    places = np.unravel_index(np.array(numbers, dtype=np.int64), counts)
    return _total(place * strides[d] for place, d in zip(places, dims, strict=True))


def _runs(
    order: Indices, chunks: Indices, blocks: Indices, most_blocks: int, most_points: int
) -> Iterator[Indices]:
    """Yield runs of points of the same chunk, of a bounded number of points and of blocks."""
    new_chunk = np.diff(chunks[order], prepend=-1) != 0
    new_block = new_chunk | (np.diff(blocks[order], prepend=-1) != 0)
    first_of_chunk = np.flatnonzero(new_chunk)
    for begin, end in zip(first_of_chunk, [*first_of_chunk[1:], len(order)], strict=True):
        block_number = np.cumsum(new_block[begin:end]) - 1
        part = block_number // most_blocks
        for low in np.flatnonzero(np.diff(part, prepend=-1)):
            high = int(np.searchsorted(part, part[low], side="right"))
            for at in range(int(low), high, most_points):
                yield order[begin + at : begin + min(high, at + most_points)]


def _coordinates(
    grid: ChunkGrid, points: dict[int, Indices], slices: dict[int, Axis], cell: Cell, run: Indices
) -> tuple[Indices, ...]:
    ndim = len(slices)
    found: dict[int, Indices] = {}
    for d, index in points.items():
        found[d] = (index[run] % grid.chunks[d]).reshape(-1, *[1] * ndim)
    for n, (d, source) in enumerate(zip(slices, cell.source, strict=True)):
        values = np.arange(source.start, source.stop, source.step)
        found[d] = values.reshape([1] * (n + 1) + [-1] + [1] * (ndim - n - 1))
    return tuple(found[d] for d in range(len(grid.shape)))
