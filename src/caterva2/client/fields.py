"""Fields of structured arrays: of each only its own elements are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from caterva2.client.described import Shaped, dtype_of
from caterva2.client.keys import fancy, selects_points
from caterva2.errors import InvalidSelection
from caterva2.model.selection import Axis, Selection, select

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from caterva2.client.array import Array

__all__ = ["Field", "Fields"]


class Fields(Mapping[str, "Field"]):
    """The fields of an array, or of a field that is structured itself, by name."""

    def __init__(self, array: Array, names: tuple[str, ...] = ()) -> None:
        self._array = array
        self._names = names

    def __getitem__(self, name: str) -> Field:
        """Return a field; nothing is read.

        Raises
        ------
        InvalidSelection
            If there is none of that name.
        """
        if name not in self:
            has = ", ".join(self) or "no fields"
            raise InvalidSelection(f"{self._array.path!r} has no field {name!r} (it has {has})")
        return Field(self._array, (*self._names, name))

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def _all(self) -> tuple[str, ...]:
        return _dtype(self._array, self._names).names or ()

    def get(self, name: str, default: Any = None) -> Any:  # Any: as of a mapping
        """Return a field; a default if there is none of that name."""
        try:
            return self[name]
        except InvalidSelection:
            return default

    def __repr__(self) -> str:
        return f"<Fields of {self._array.path}: {', '.join(self) or 'none'}>"


class Field(Shaped):
    """A field of a structured array: an array of its elements, which is read as `Array` is.

    Attributes
    ----------
    name : str
    array : Array
        What it is a field of; reads are of the version that this is at.
    """

    def __init__(self, array: Array, names: tuple[str, ...]) -> None:
        self.array = array
        self.name = names[-1]
        self._names = names

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements."""
        return _dtype(self.array, self._names).base

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each dimension: those of the array, then those of a field that is an array."""
        return self.array.shape + _dtype(self.array, self._names).shape

    @property
    def fields(self) -> Fields:
        """Its own fields by name, where its elements are structured."""
        return Fields(self.array, self._names)

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        """Yield what ``field[0]``, ``field[1]`` ... are, reading as many at once as chunks are long."""
        step = max(1, self.array.chunks[0]) if self.array.ndim else 1
        for first in range(0, len(self), step):
            yield from self[first : first + step]

    def __getitem__(self, key: Any) -> Any:  # Any: what numpy takes, and a numpy array or scalar
        """Read a part of it. A name gives a field of it, unread.

        Raises
        ------
        InvalidSelection
            As for an array; and for lists and masks of the dimensions of its own that a field has which is an
            array: read these whole, and select then.
        Changed, NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        if isinstance(key, str):
            return self.fields[key]
        info = self.array.info
        if len(self.shape) > self.array.ndim:
            return self._of_arrays(key, info)
        first, *rest = self._names
        found = self.array._get(key, info, first)
        for name in rest:
            found = found[name]
        return found

    def _of_arrays(self, key: Any, info: Mapping[str, Any]) -> Any:  # Any: as above
        """Read a part of a field that is an array itself: all of its elements, to select of these here."""
        parts, ndim = key if isinstance(key, tuple) else (key,), self.array.ndim
        if selects_points(parts):
            known = fancy(parts, self.shape).parts
            if any(not isinstance(part, slice) or part != slice(None) for part in known[ndim:]):
                raise InvalidSelection(
                    f"field {self.name!r} is an array itself: read it whole, and select then"
                )
            return self._own(self.array._get(tuple(known[:ndim]), info))
        axes = select(key, self.shape).axes
        whole = self._own(self.array._read(Selection(axes[:ndim]), info))
        found = whole[(..., *map(_as_key, axes[ndim:]))]
        return found[()] if not found.ndim and Ellipsis not in parts else found

    def _own(self, records: npt.NDArray[Any]) -> npt.NDArray[Any]:
        for name in self._names:
            records = records[name]
        return records

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read all of it, for ``numpy.asarray(field)``."""
        import numpy as np

        if copy is False:
            raise ValueError("a remote array cannot be had without a copy")
        return np.asarray(self[...], dtype)

    def __repr__(self) -> str:
        return f"<Field {'.'.join(self._names)} of {self.array.path}: {self.shape} {self.dtype}>"


def _dtype(array: Array, names: tuple[str, ...]) -> np.dtype[Any]:
    dtype = dtype_of(array.info)
    for name in names:
        dtype = dtype[name]
    return dtype


def _as_key(axis: Axis) -> int | slice:
    if axis.drop:
        return axis.start
    if axis.reverse:
        return slice(axis.stop - 1, axis.start - 1 if axis.start else None, -axis.step)
    return slice(axis.start, axis.stop, axis.step)
