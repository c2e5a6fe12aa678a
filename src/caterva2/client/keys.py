"""Keys that select by lists and masks, as numpy reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caterva2.errors import InvalidSelection
from caterva2.model.selection import Axis, Selection, select

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Fancy", "fancy", "indices_of", "only_mask", "selects_points"]


def selects_points(parts: tuple[Any, ...]) -> bool:  # Any: parts of a key
    """Return whether a key selects by lists of indices, or by masks."""
    return any(map(_is_list, parts))


def indices_of(parts: tuple[Any, ...], shape: Sequence[int]) -> list[Any]:  # Any: of a key, and their JSON
    """Return a key with lists or masks as the service reads it, a part for each dimension.

    Raises
    ------
    InvalidSelection
    """
    return fancy(parts, shape).indices()


@dataclass(frozen=True)
class Fancy:
    """A key with lists of indices, a part for each dimension.

    Attributes
    ----------
    parts : list of slice, int or ndarray
        Masks have become the indices of their true elements.
    shape : tuple of int
        Of the array.
    """

    parts: list[Any]
    shape: tuple[int, ...]

    def indices(self) -> list[Any]:
        """Return it as the service reads it: text for slices, lists for arrays."""
        return [_text(part) if isinstance(part, slice) else part.tolist() for part in self.parts]

    @property
    def lists(self) -> dict[int, npt.NDArray[np.intp]]:
        """Its lists by dimension, and the integers among them, which numpy takes for lists as well."""
        return {n: part for n, part in enumerate(self.parts) if not isinstance(part, slice)}

    @property
    def slices(self) -> dict[int, Axis]:
        """What is selected of the other dimensions."""
        return {
            n: select((slice(None),) * n + (part,), self.shape).axes[n]
            for n, part in enumerate(self.parts)
            if isinstance(part, slice)
        }

    @property
    def common(self) -> tuple[int, ...]:
        """Shape that the lists have together.

        Raises
        ------
        InvalidSelection
            If they do not fit each other.
        """
        import numpy as np

        try:
            return np.broadcast_shapes(*(part.shape for part in self.lists.values()))
        except ValueError as error:
            raise InvalidSelection(f"the lists of the selection do not fit each other: {error}") from error

    @property
    def position(self) -> int:
        """Where their dimensions go in the result."""
        dims = list(self.lists)
        adjacent = dims[-1] - dims[0] == len(dims) - 1
        return dims[0] if adjacent else 0

    def checked(self, dimension: int) -> npt.NDArray[np.intp]:
        """Return the list of a dimension without negative indices.

        Raises
        ------
        InvalidSelection
            If one is out of bounds.
        """
        import numpy as np

        rows, length = self.parts[dimension], self.shape[dimension]
        outside = (rows < -length) | (rows >= length)
        if outside.any():
            wrong = int(rows[outside][0])
            raise InvalidSelection(
                f"index {wrong} is out of bounds for dimension {dimension} with size {length}"
            )
        inside: npt.NDArray[np.intp] = np.where(rows < 0, rows + length, rows).astype(np.intp)
        return inside

    def at(self, dimension: int, part: slice) -> Selection:
        """Return what the slices select, with one more in place of the only list."""
        parts = [*self.parts]
        parts[dimension] = part
        return select(tuple(parts), self.shape)

    def flat(self) -> Fancy:
        """Return the same with lists of one dimension, all as long as each other."""
        import numpy as np

        common = self.common
        return self._with_lists(lambda part: np.broadcast_to(part, common).reshape(-1))

    def run(self, first: int, stop: int) -> Fancy:
        """Return what some of the points of a flat one select."""
        return self._with_lists(lambda part: part[first:stop])

    def _with_lists(self, change: Callable[[Any], Any]) -> Fancy:
        return Fancy(
            [part if isinstance(part, slice) or not part.ndim else change(part) for part in self.parts],
            self.shape,
        )


def fancy(parts: tuple[Any, ...], shape: Sequence[int]) -> Fancy:  # Any: parts of a key
    """Normalise a key with lists or masks.

    Raises
    ------
    InvalidSelection
        If there are too many parts, or one is neither integers, nor a slice, nor a mask of that shape.
    """
    before: list[Any] = []  # an ellipsis: of each part, what it selects of its dimensions
    after: list[Any] = []
    current, ellipses = before, 0
    for part in parts:
        if part is Ellipsis:
            current, ellipses = after, ellipses + 1
        else:
            current.extend(_one(part, len(before) + len(after)))
    given = len(before) + len(after)
    if given > len(shape):
        raise InvalidSelection(f"too many indices: the array has {len(shape)} dimensions, {given} were given")
    if ellipses > 1:
        raise InvalidSelection("a selection can have one ellipsis ('...') only")
    complete = [*before, *[slice(None)] * (len(shape) - given), *after]
    return Fancy([_fitting(part, shape[n], n) for n, part in enumerate(complete)], tuple(shape))


def only_mask(parts: tuple[Any, ...]) -> npt.NDArray[np.bool_] | None:  # Any: parts of a key
    """Return the mask of a key that is nothing but that: of the first dimensions of an array, or of all."""
    import numpy as np

    rest = [part for part in parts if part is not Ellipsis]
    if len(rest) != 1 or (parts[0] is Ellipsis and len(parts) > 1):
        return None
    try:
        mask = np.asarray(rest[0])
    except ValueError:
        return None
    return mask if mask.dtype.kind == "b" else None


@dataclass(frozen=True)
class _Mask:
    """One dimension of a mask: its shape there, and the indices of its true elements."""

    length: int
    indices: npt.NDArray[np.intp]


def _is_list(part: Any) -> bool:
    """Whether a part of a key is a list or an array of indices; without importing numpy for it."""
    return isinstance(part, list) or (hasattr(part, "dtype") and bool(getattr(part, "ndim", 0)))


def _one(part: Any, dimension: int) -> list[Any]:
    """Return what a part of a key is, for each dimension that it selects of."""
    import numpy as np

    if isinstance(part, slice):
        bounds = [part.start, part.stop] + ([] if part.step is None else [part.step])
        if any(bound is not None and not hasattr(bound, "__index__") for bound in bounds):
            raise InvalidSelection(f"dimension {dimension}: slice indices must be integers or None")
        return [part]
    if part is None or isinstance(part, str):
        raise InvalidSelection(f"dimension {dimension}: {part!r} cannot select, integers and slices do")
    try:
        index = np.asarray(part)
    except ValueError as error:
        raise InvalidSelection(f"dimension {dimension}: {error}") from error
    if index.dtype.kind == "b" and index.ndim:
        return [_Mask(*one) for one in zip(index.shape, np.nonzero(index), strict=True)]
    if index.dtype.kind not in "iu" and index.size:
        raise InvalidSelection(f"dimension {dimension}: {index.dtype} cannot select; use integers")
    return [index.astype(np.intp) if not index.size else index]


def _fitting(part: Any, length: int, dimension: int) -> Any:
    if not isinstance(part, _Mask):
        return part
    if part.length != length:
        raise InvalidSelection(
            f"dimension {dimension}: the mask is {part.length} long there, the array {length}"
        )
    return part.indices


def _text(part: slice) -> str:
    bounds = [part.start, part.stop] + ([] if part.step is None else [part.step])
    return ":".join("" if bound is None else str(int(bound)) for bound in bounds)
