"""Fancy keys, as numpy reads them: lists of indices among integers and slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import InvalidSelection, TooLarge
from caterva2.model.selection import Axis, select

__all__ = ["Points", "parse_points"]

MAX_POINTS = 2**24
"""Most points of one request: each needs an index for each dimension."""


@dataclass(frozen=True)
class Points:
    """A fancy key, normalised.

    Attributes
    ----------
    points : dict
        For each dimension indexed by a list or an integer, the index of each point: int64, shape (npoints,).
    slices : dict
        For each other dimension, what is selected of it, in increasing order.
    shape : tuple of int
        Shape that the lists broadcast to; ``npoints`` is its product.
    position : int
        Where `shape` goes among the sliced dimensions in the result.
    """

    points: dict[int, npt.NDArray[np.int64]]
    slices: dict[int, Axis]
    shape: tuple[int, ...]
    position: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Shape of what is gathered: points, then the sliced dimensions."""
        npoints = len(next(iter(self.points.values())))
        return (npoints, *(axis.count for axis in self.slices.values()))

    def arrange(self, gathered: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what was gathered in the shape that numpy gives."""
        ordered = gathered[
            (slice(None), *(slice(None, None, -1 if axis.reverse else 1) for axis in self.slices.values()))
        ]
        ordered = ordered.reshape(self.shape + ordered.shape[1:])
        here = range(len(self.shape))
        return np.moveaxis(ordered, list(here), [self.position + n for n in here])


def parse_points(key: Sequence[Any], shape: Sequence[int]) -> Points | None:
    """Normalise a key with lists of integers.

    Parameters
    ----------
    key : sequence of int, slice or (nested) list of int
        Dimensions left out are selected whole.
    shape : sequence of int
        Shape of the array.

    Returns
    -------
    Points or None
        None if the key has no list: it is an ordinary selection.

    Raises
    ------
    InvalidSelection
        If there are too many parts, a part is of another kind, an index is out of bounds, or the lists do not
        broadcast.
    TooLarge
        If there are more than `MAX_POINTS` points.
    """
    if len(key) > len(shape):
        raise InvalidSelection(
            f"too many indices: the array has {len(shape)} dimensions, {len(key)} were given"
        )
    parts = [*key, *[slice(None)] * (len(shape) - len(key))]
    if not any(isinstance(part, list | np.ndarray) for part in parts):
        return None
    slices: dict[int, Axis] = {}
    lists: dict[int, npt.NDArray[np.int64]] = {}
    for d, (part, length) in enumerate(zip(parts, shape, strict=True)):
        if isinstance(part, slice):
            slices[d] = select((slice(None),) * d + (part,), shape).axes[d]
        else:
            lists[d] = _indices(part, length, d)
    try:
        common = np.broadcast_shapes(*(index.shape for index in lists.values()))
    except ValueError as error:
        raise InvalidSelection(f"the lists of the selection do not fit each other: {error}") from error
    npoints = int(np.prod(common, dtype=object)) if common else 1
    if npoints > MAX_POINTS:
        raise TooLarge(npoints * 8 * len(lists), MAX_POINTS * 8 * len(lists), "index of the points")
    points = {
        d: np.ascontiguousarray(np.broadcast_to(index, common)).reshape(-1) for d, index in lists.items()
    }
    dims = list(lists)
    adjacent = dims[-1] - dims[0] == len(dims) - 1
    return Points(points, slices, tuple(common), dims[0] if adjacent else 0)


def _indices(part: Any, length: int, dimension: int) -> npt.NDArray[np.int64]:
    try:
        index = np.asarray(part)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidSelection(f"dimension {dimension}: not a list of integers: {error}") from error
    if not index.size and index.dtype.kind == "f":  # what numpy makes of []
        index = index.astype(np.int64)
    if index.dtype.kind not in "iu":
        raise InvalidSelection(f"dimension {dimension}: lists of integers select, not of {index.dtype}")
    outside = (index < -length) | (index >= length)
    if outside.any():
        wrong = int(index[outside].flat[0])
        raise InvalidSelection(f"index {wrong} is out of bounds for dimension {dimension} with size {length}")
    index = index.astype(np.int64)
    return np.where(index < 0, index + length, index)
