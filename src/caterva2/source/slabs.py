"""Large selections in parts whose elements follow each other in the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.model.grid import ChunkGrid
from caterva2.model.selection import Axis, Selection

__all__ = ["Slab", "slabs"]


class Slab:
    """A part of a large answer that waits to be sent.

    Parameters
    ----------
    array : ndarray
        Contiguous.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._data: memoryview | None = array.reshape(-1).view(np.uint8).data

    def copy(self, start: int, stop: int) -> bytes | None:
        """Return bytes of it, which do not keep it in memory; None once it was freed."""
        return None if self._data is None else bytes(self._data[start:stop])

    def free(self) -> None:
        """Let go of the memory."""
        self._data = None


def slabs(grid: ChunkGrid, selection: Selection, itemsize: int, slab_bytes: int) -> Iterator[Selection]:
    """Cut a selection into slabs: in C order, the answer is the answers to the slabs one after the other.

    Parameters
    ----------
    grid : ChunkGrid
    selection : Selection
        Of the grid's shape.
    itemsize : int
        Bytes of an element.
    slab_bytes : int
        About what a slab takes. It ends where blocks end, so that none is decoded twice, if that makes it no
        more than four times as large, which is the most that one takes.

    Yields
    ------
    Selection
        The selection itself if it is small, empty, or has one element along each dimension.
    """
    d = next((n for n, axis in enumerate(selection.axes) if axis.count > 1), None)
    row_bytes = itemsize * math.prod(selection.counts[d + 1 :]) if d is not None else 0
    if d is None or not selection.size or row_bytes * selection.axes[d].count <= slab_bytes:
        yield selection
        return
    axis = selection.axes[d]
    if row_bytes > 4 * slab_bytes:
        for row in range(axis.count)[:: -1 if axis.reverse else 1]:
            yield from slabs(grid, _run_of(selection, d, row, row + 1), itemsize, slab_bytes)
        return
    rows = max(1, slab_bytes // row_bytes)
    for first, last in _runs(axis, grid.chunks[d], grid.blocks[d], rows, 4 * slab_bytes // row_bytes):
        yield _run_of(selection, d, first, last)


def _run_of(selection: Selection, d: int, first: int, last: int) -> Selection:
    """Return a run of a selection along one dimension, by numbers of elements in increasing order."""
    axis = selection.axes[d]
    part = replace(axis, start=axis.start + first * axis.step, count=last - first)
    return Selection((*selection.axes[:d], part, *selection.axes[d + 1 :]))


def _runs(axis: Axis, chunk: int, block: int, rows: int, most: int) -> list[tuple[int, int]]:
    """Return runs of an axis, as numbers along it, in the order of the answer."""
    runs = []
    first = 0
    while first < axis.count:
        last = _block_end(axis, chunk, block, first)
        while last < axis.count and (after := _block_end(axis, chunk, block, last)) - first <= rows:
            last = after
        if last - first > most:
            last = first + rows
        runs.append((first, last))
        first = last
    return runs[::-1] if axis.reverse else runs


def _block_end(axis: Axis, chunk: int, block: int, number: int) -> int:
    """Return the number of the first index behind the block that holds an index."""
    index = axis.start + number * axis.step
    base = index // chunk * chunk
    end = min(base + ((index - base) // block + 1) * block, base + chunk)
    return min(axis.count, number + -(-(end - index) // axis.step))
