"""Where the elements of decoded blocks go in a result."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.model.grid import Cell

__all__ = ["scatter", "scatter_blocks"]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has

LARGE_BLOCK_BYTES = 8 * 1024
"""Blocks from here on, in bytes, are copied one by one; smaller ones all at once, by way of a copy."""


def scatter(raw: memoryview, dtype: np.dtype[Any], blocks: tuple[int, ...], cell: Cell, out: Array) -> None:
    """Write the selected elements of some blocks where they belong.

    Parameters
    ----------
    raw : memoryview
        The blocks of ``cell.blocks``, decoded, one after the other. In one dimension the last may be short.
    dtype : numpy.dtype
    blocks : tuple of int
        Shape of a block.
    cell : Cell
    out : ndarray of `dtype`
        ``out[cell.target]`` is written.
    """
    elements = np.frombuffer(raw, dtype=dtype)
    if len(blocks) <= 1:
        region = cell.region[0] if blocks else 0
        out[cell.target] = elements[list(region) if isinstance(region, tuple) else region]
    elif len(cell.blocks) == 1:
        # a tuple of one index is a slice, whatever the step
        key = tuple(slice(r[0], r[0] + 1) if isinstance(r, tuple) else r for r in cell.region)
        out[cell.target] = elements.reshape(blocks)[key]
    elif len(raw) // len(cell.blocks) >= LARGE_BLOCK_BYTES:
        _one_by_one(elements.reshape(-1, *blocks), cell, out)
    else:
        _all_at_once(elements, blocks, cell, out)


def scatter_blocks(
    found: Sequence[Array], dtype: np.dtype[Any], blocks: tuple[int, ...], cell: Cell, out: Array
) -> None:
    """Do as `scatter`, with each block in memory of its own.

    Parameters
    ----------
    found : sequence of ndarray of uint8
        The bytes of the blocks of ``cell.blocks``.
    dtype, blocks, cell, out
        As for `scatter`.
    """
    if len(blocks) > 1 and len(found) > 1 and len(found[0]) >= LARGE_BLOCK_BYTES:
        _one_by_one([block.view(dtype).reshape(blocks) for block in found], cell, out)
    else:
        raw = found[0] if len(found) == 1 else np.concatenate(found)
        scatter(raw.data, dtype, blocks, cell, out)


def _all_at_once(elements: Array, blocks: tuple[int, ...], cell: Cell, out: Array) -> None:
    ndim, counts = len(blocks), [len(box) for box in cell.box]
    axes = [axis for d in range(ndim) for axis in (d, ndim + d)]
    side = [count * block for count, block in zip(counts, blocks, strict=True)]
    region = elements.reshape(*counts, *blocks).transpose(axes).reshape(side)
    if all(isinstance(r, slice) for r in cell.region):
        out[cell.target] = region[cell.region]
    else:
        indices = [
            np.arange(n)[list(r) if isinstance(r, tuple) else r]
            for n, r in zip(side, cell.region, strict=True)
        ]
        out[cell.target] = region[np.ix_(*indices)]


def _one_by_one(elements: Array | Sequence[Array], cell: Cell, out: Array) -> None:
    along = [
        list(_along(source, box, block, target.start))
        for source, box, block, target in zip(
            cell.source, cell.box, elements[0].shape, cell.target, strict=True
        )
    ]
    for number, parts in enumerate(itertools.product(*along)):
        source = tuple(part[0] for part in parts)
        target = tuple(part[1] for part in parts)
        out[target] = elements[number][source]


def _along(source: slice, box: Sequence[int], block: int, first: int) -> Iterator[tuple[slice, slice]]:
    """Yield for each block along a dimension its selected elements and where they go."""
    start, stop, step = source.start, source.stop, source.step
    for number in box:
        low = number * block
        before = max(0, -(-(low - start) // step))  # how many indices lie before this block
        after = -(-(min(stop, low + block) - start) // step)
        begin = start + before * step - low
        yield (
            slice(begin, begin + (after - before - 1) * step + 1, step),
            slice(first + before, first + after),
        )
