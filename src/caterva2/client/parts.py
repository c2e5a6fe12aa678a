"""Cutting a large selection into parts, so that neither side has to hold all of it twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from caterva2.model.selection import Axis, Selection

__all__ = ["PART_BYTES", "Part", "cut"]

PART_BYTES = 64 * 1024 * 1024
"""About how large a part is, in bytes of decoded elements."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a selection.

    Attributes
    ----------
    selection : Selection
        Without dropped and reversed dimensions.
    target : tuple of slice
        Where it goes in an array of the counts of the whole selection, in increasing order of index.
    """

    selection: Selection
    target: tuple[slice, ...]


def cut(
    selection: Selection, chunks: Sequence[int], itemsize: int, part_bytes: int = PART_BYTES
) -> list[Part]:
    """Cut a selection into parts, in row-major order.

    It is cut between chunks, so that none is decoded for two parts, along the first dimension as far as that
    is enough; within chunks only where one alone is too large.

    Parameters
    ----------
    selection : Selection
    chunks : sequence of int
        Elements of a chunk along each dimension.
    itemsize : int
        Size of an element, in bytes.
    part_bytes : int
        Most bytes of a part. A single element is a part whatever its size.
    """
    whole = Part(
        Selection(tuple(replace(axis, drop=False, reverse=False) for axis in selection.axes)),
        tuple(slice(0, axis.count) for axis in selection.axes),
    )
    parts = [whole] if selection.size else []
    for grid in (tuple(chunks), (1,) * len(chunks)):
        for dimension, chunk in enumerate(grid):
            parts = [
                smaller for part in parts for smaller in _along(part, dimension, chunk, itemsize, part_bytes)
            ]
    return parts


def _along(part: Part, dimension: int, chunk: int, itemsize: int, part_bytes: int) -> Iterator[Part]:
    """Cut a part along a dimension, if it is too large, into runs of whole chunks."""
    axis = part.selection.axes[dimension]
    row_bytes = part.selection.size // axis.count * itemsize
    if row_bytes * axis.count <= part_bytes or axis.count == 1:
        yield part
        return
    first = 0
    while first < axis.count:
        stop = _run(axis, first, chunk, max(1, part_bytes // row_bytes))
        yield _sub(part, dimension, first, stop)
        first = stop


def _run(axis: Axis, first: int, chunk: int, rows: int) -> int:
    """Return where a run that begins with the element `first` ends: after whole chunks, at most `rows`."""
    most = min(first + rows, axis.count)
    if most == axis.count:
        return most
    boundary = (axis.start + most * axis.step) // chunk * chunk  # of the chunk that would be cut
    stop = -(-(boundary - axis.start) // axis.step)
    if stop > first:
        return stop
    chunk_stop = ((axis.start + first * axis.step) // chunk + 1) * chunk
    return min(axis.count, -(-(chunk_stop - axis.start) // axis.step))


def _sub(part: Part, dimension: int, first: int, stop: int) -> Part:
    axes, target = list(part.selection.axes), list(part.target)
    axis = axes[dimension]
    axes[dimension] = replace(axis, start=axis.start + first * axis.step, count=stop - first)
    begin = target[dimension].start
    target[dimension] = slice(begin + first, begin + stop)
    return Part(Selection(tuple(axes)), tuple(target))
