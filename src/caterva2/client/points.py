"""Reading by lists and masks, however many points these select.

A request can name some ten thousand points. More of them are asked for in several requests; and where they
lie close together, the box around them is read instead, and what is not wanted of it is left out here. So a
mask that selects half of an array costs no more than all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from caterva2.client.keys import Fancy
from caterva2.errors import InvalidSelection
from caterva2.model.selection import Selection, select

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["PointReader", "read_mask", "read_points"]

MOST_INDICES = 40_000
"""Indices that one request names: its body may have a mebibyte."""

ANSWER_BYTES = 16 * 1024 * 1024
"""Largest answer to a request for points, in bytes."""

BOX_BYTES = 64 * 1024 * 1024
"""Largest box that is read for what a mask selects of it, in bytes."""

SPARSE = 4
"""Boxes are read where they hold at most so many times what is wanted of them."""

ROW_BYTES = 1024 * 1024
"""What a single index selects is read by itself if it is as large as this, in bytes."""


class PointReader(Protocol):
    """What reads one version of an array, or of a field of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Elements of a chunk along each dimension."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is read."""
        ...

    def box(self, selection: Selection) -> npt.NDArray[Any]:
        """Read a selection."""
        ...

    def points(self, key: Fancy) -> npt.NDArray[Any]:
        """Read what lists select, in one request."""
        ...


def read_points(reader: PointReader, key: Fancy) -> npt.NDArray[Any]:
    """Read what lists select.

    Raises
    ------
    InvalidSelection
        If they do not fit each other or the array.
    TooLarge
        If the service makes no answer as large as what a single point selects.
    """
    common, lists = key.common, key.lists
    count = math.prod(common)
    row_bytes = math.prod(axis.count for axis in key.slices.values()) * reader.dtype.itemsize
    if count * len(lists) <= MOST_INDICES and count * row_bytes <= ANSWER_BYTES:
        return reader.points(key)
    if len(lists) == 1 and len(common) == 1:
        (dimension,) = lists
        rows = key.checked(dimension)
        extent = int(rows.max() - rows.min()) + 1
        if extent <= SPARSE * count:
            first = int(rows.min())
            box = reader.box(key.at(dimension, slice(first, first + extent)))
            return box.take(rows - first, axis=dimension)
        if row_bytes >= ROW_BYTES:
            return _row_by_row(reader, key, dimension, rows.tolist())
    most = min(MOST_INDICES // len(lists), ANSWER_BYTES // max(1, row_bytes))
    return _in_runs(reader, key, max(1, most))


def _row_by_row(reader: PointReader, key: Fancy, dimension: int, rows: list[int]) -> npt.NDArray[Any]:
    import numpy as np

    counts = [axis.count for axis in key.slices.values()]
    found = np.empty((*counts[:dimension], len(rows), *counts[dimension:]), reader.dtype)
    for number, row in enumerate(rows):
        where = (*(slice(None),) * dimension, slice(number, number + 1))
        found[where] = reader.box(key.at(dimension, slice(row, row + 1)))
    return found


def _in_runs(reader: PointReader, key: Fancy, most: int) -> npt.NDArray[Any]:
    """Read so many points at once."""
    import numpy as np

    common, position, flat = key.common, key.position, key.flat()
    count, counts = math.prod(common), tuple(axis.count for axis in key.slices.values())
    found = np.empty((*counts[:position], count, *counts[position:]), reader.dtype)
    for first in range(0, count, most):
        where = (*(slice(None),) * position, slice(first, first + most))
        found[where] = reader.points(flat.run(first, first + most))
    return found.reshape(counts[:position] + common + counts[position:])


def read_mask(reader: PointReader, mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Read what a mask of the first dimensions selects, or of all, in C order.

    Raises
    ------
    InvalidSelection
        If the array has another shape.
    """
    import numpy as np

    shape = reader.shape
    if mask.shape != shape[: mask.ndim]:
        raise InvalidSelection(f"the mask has the shape {mask.shape}, the array {shape}")
    rest = shape[mask.ndim :]
    row_bytes = math.prod(rest) * reader.dtype.itemsize
    found = np.empty((np.count_nonzero(mask), *rest), reader.dtype)
    first = 0
    for leaf in _leaves(mask, (0,) * mask.ndim, reader.chunks, row_bytes):
        stop = first + leaf.count
        found[first:stop] = leaf.read(reader, row_bytes)
        first = stop
    return found


@dataclass(frozen=True)
class _Leaf:
    """A box of a mask, of which at least one element is true.

    Attributes
    ----------
    mask : ndarray
    start : tuple of int
        Where it begins in the array.
    """

    mask: npt.NDArray[np.bool_]
    start: tuple[int, ...]
    count: int

    def may_be_points(self, row_bytes: int) -> bool:
        """Return whether one request can name all that it selects."""
        return self.count * self.mask.ndim <= MOST_INDICES and self.count * row_bytes <= ANSWER_BYTES

    def may_be_a_box(self, row_bytes: int) -> bool:
        """Return whether all of it can be read."""
        return self.mask.size * row_bytes <= BOX_BYTES or self.mask.size == 1

    def read(self, reader: PointReader, row_bytes: int) -> npt.NDArray[Any]:
        """Return what it selects."""
        import numpy as np

        is_sparse = self.mask.size > SPARSE * self.count
        if self.may_be_points(row_bytes) and (is_sparse or not self.may_be_a_box(row_bytes)):
            lists = zip(np.nonzero(self.mask), self.start, strict=True)
            rest = [slice(None)] * (len(reader.shape) - self.mask.ndim)
            return reader.points(Fancy([*(index + start for index, start in lists), *rest], reader.shape))
        sides = zip(self.start, self.mask.shape, strict=True)
        box = reader.box(select(tuple(slice(start, start + n) for start, n in sides), reader.shape))
        found: npt.NDArray[Any] = box[self.mask]
        return found


def _leaves(
    mask: npt.NDArray[np.bool_], start: tuple[int, ...], chunks: Sequence[int], row_bytes: int
) -> Iterator[_Leaf]:
    """Cut a mask into boxes that can be read at once, in C order of their elements."""
    import numpy as np

    if not (count := int(np.count_nonzero(mask))):
        return
    mask, start = _trimmed(mask, start)
    leaf = _Leaf(mask, start, count)
    if leaf.may_be_points(row_bytes) or leaf.may_be_a_box(row_bytes):
        yield leaf
        return
    # along the first dimension that has two elements: so the order stays
    dimension = next(n for n, length in enumerate(mask.shape) if length > 1)
    at = _middle(start[dimension], mask.shape[dimension], chunks[dimension])
    before = (slice(None),) * dimension
    yield from _leaves(mask[(*before, slice(None, at))], start, chunks, row_bytes)
    there = (*start[:dimension], start[dimension] + at, *start[dimension + 1 :])
    yield from _leaves(mask[(*before, slice(at, None))], there, chunks, row_bytes)


def _trimmed(
    mask: npt.NDArray[np.bool_], start: tuple[int, ...]
) -> tuple[npt.NDArray[np.bool_], tuple[int, ...]]:
    """Return the smallest box of a mask that has all its true elements."""
    import numpy as np

    box = []
    for dimension in range(mask.ndim):
        others = tuple(n for n in range(mask.ndim) if n != dimension)
        (used,) = np.nonzero(mask.any(axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return mask[tuple(box)], tuple(first + side.start for first, side in zip(start, box, strict=True))


def _middle(start: int, length: int, chunk: int) -> int:
    """Return where to halve a side: between chunks, if there is such a place."""
    middle = (start + length // 2 + chunk // 2) // chunk * chunk - start
    return middle if 0 < middle < length else length // 2
