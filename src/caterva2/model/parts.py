"""Cutting a large selection into parts, so that nobody has to hold all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from caterva2.model.selection import Axis, Selection

__all__ = ["Part", "answer_chunks", "cut", "cut_answer"]


ANSWER_CHUNK_BYTES = 2 * 1024 * 1024
"""Most that a chunk of a large answer takes, in bytes, decoded."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a selection.

    Attributes
    ----------
    selection : Selection
    target : tuple of slice
        Where it goes in the whole.
    """

    selection: Selection
    target: tuple[slice, ...]


def cut(selection: Selection, chunks: Sequence[int], itemsize: int, part_bytes: int) -> list[Part]:
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

    Returns
    -------
    list of Part
        Without dropped and reversed dimensions: the whole is an array of the counts of the selection, in
        increasing order of index.
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


def cut_answer(selection: Selection, chunks: Sequence[int], itemsize: int, part_bytes: int) -> list[Part]:
    """Cut a selection as `cut` does, but between the chunks that its answer will have.

    Parameters
    ----------
    selection, itemsize, part_bytes
        As for `cut`.
    chunks : sequence of int
        Elements of a chunk of the answer along each dimension of the selection, dropped ones included.

    Returns
    -------
    list of Part
        Of the answer: the whole is an array of ``selection.shape``.
    """
    axes = selection.axes
    answer = Selection(tuple(Axis(0, axis.count, 1) for axis in axes))
    return [
        Part(
            Selection(tuple(map(_sub_axis, axes, part.target))),
            tuple(run for axis, run in zip(axes, part.target, strict=True) if not axis.drop),
        )
        for part in cut(answer, chunks, itemsize, part_bytes)
    ]


def answer_chunks(selection: Selection, chunks: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return chunks for a large answer, along each dimension of the selection.

    They are like the stored ones, so that those are read once, but neither tiny nor large.

    Parameters
    ----------
    selection : Selection
    chunks : sequence of int
        Elements of a stored chunk along each dimension.
    itemsize : int
        Size of an element as it is stored, in bytes.
    """
    counts = selection.counts
    sizes = [
        min(-(-chunk // axis.step), axis.count) for chunk, axis in zip(chunks, selection.axes, strict=True)
    ]
    while math.prod(sizes) * itemsize > ANSWER_CHUNK_BYTES and max(sizes) > 1:
        dimension = next(n for n, size in enumerate(sizes) if size > 1)
        sizes[dimension] = -(-sizes[dimension] // 2)
    while 2 * math.prod(sizes) * itemsize <= ANSWER_CHUNK_BYTES and tuple(sizes) != counts:
        dimension = max(n for n, size in enumerate(sizes) if size < counts[n])
        sizes[dimension] = min(2 * sizes[dimension], counts[dimension])
    return tuple(sizes)


def _sub_axis(axis: Axis, run: slice) -> Axis:
    """Return what a run along an answer selects."""
    first = axis.count - run.stop if axis.reverse else run.start
    return replace(axis, start=axis.start + first * axis.step, count=run.stop - run.start)


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
