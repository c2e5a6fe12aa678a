"""Arrays as variables of xarray: read lazily, with names for their dimensions, attributes and encoding."""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray
from xarray.backends import AbstractDataStore, BackendArray
from xarray.core import indexing

from caterva2.adapters.dimensions import dimensions_together, stored_dimensions
from caterva2.client import Array
from caterva2.errors import TooLarge

__all__ = ["ArrayStore", "RemoteArray"]

SPREAD = 4
"""Lists of indices are sent where the smallest box around their elements has so many times their number."""

_FILLS = ("_FillValue", "missing_value")
"""Attributes that say what stands for missing data, in the conventions for climate and forecast (CF)."""

_NOT_IN_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class RemoteArray(BackendArray):
    """An array that xarray indexes: slices, and points that lie far from each other, are read as they are.

    It can be read by several threads, and pickles as its array does.

    Parameters
    ----------
    array : Array
    """

    __slots__ = ("_array", "dtype", "shape")

    def __init__(self, array: Array) -> None:
        self._array = copy(array)  # which stays at its version, whatever becomes of the other
        self.shape = array.shape
        self.dtype = _dtype(array.dtype)

    def __dask_tokenize__(self) -> Any:  # Any: as dask takes it
        return type(self).__name__, self._array.__dask_tokenize__()

    def __getitem__(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        return np.asarray(self._read(key)).astype(self.dtype, copy=False)

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        """Read for `xarray.Dataset.load_async`, in a thread: others are read at the same time."""
        return await asyncio.to_thread(self.__getitem__, key)

    def _read(self, key: indexing.ExplicitIndexer) -> Any:  # Any: an array, or an element of one
        if _spread(key) >= SPREAD:
            outer = isinstance(key, indexing.OuterIndexer)
            try:
                return self._orthogonal(key.tuple) if outer else self._pointwise(key.tuple)
            except TooLarge:  # there is no limit to what can be read as a box
                pass
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, basic, self._array.__getitem__)

    def _pointwise(self, key: Sequence[Any]) -> npt.NDArray[Any]:
        """Read points, as numpy does, but with the sliced dimensions always behind those of the points."""
        found = np.asarray(self._array[tuple(key)])
        lists = [number for number, part in enumerate(key) if isinstance(part, np.ndarray)]
        if lists[-1] - lists[0] == len(lists) - 1:  # side by side: numpy has left the points where they were
            ndim = max(key[number].ndim for number in lists)
            found = np.moveaxis(found, range(lists[0], lists[0] + ndim), range(ndim))
        return found

    def _orthogonal(self, key: Sequence[Any]) -> npt.NDArray[Any]:
        """Read the elements at all combinations of the indices of each dimension."""
        lists = [number for number, part in enumerate(key) if isinstance(part, np.ndarray)]
        others = [number for number in range(len(key)) if number not in lists]
        parts = [part if isinstance(part, slice | np.ndarray) else slice(part, part + 1) for part in key]
        for number, grid in zip(lists, np.ix_(*[key[number] for number in lists]), strict=True):
            parts[number] = grid
        found = self._pointwise(parts).transpose(np.argsort([*lists, *others]))
        kept = tuple(slice(None) if isinstance(part, slice | np.ndarray) else 0 for part in key)
        return found[kept]


def _dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return what xarray has for a type: times in units of a second or less."""
    if stored.kind in "mM" and np.datetime_data(stored)[0] in ("Y", "M", "W", "D", "h", "m"):
        return np.dtype(f"{stored.kind}8[s]")
    return stored


class ArrayStore(AbstractDataStore):
    """Arrays as variables of one dataset, before xarray decodes them.

    Parameters
    ----------
    arrays : mapping of str to Array
        By the names that the variables get.
    outer : mapping, optional
        Lengths of the dimensions of groups around it, by name.
    """

    def __init__(self, arrays: Mapping[str, Array], outer: Mapping[str, int] | None = None) -> None:
        self._arrays = dict(arrays)
        self._outer = outer

    def get_variables(self) -> dict[str, xarray.Variable]:
        """Return the variables; nothing is read."""
        arrays = self._arrays
        found = {name: stored_dimensions(array.attrs, array.ndim) for name, array in arrays.items()}
        dimensions = dimensions_together(
            {name: array.shape for name, array in arrays.items()},
            {name: names[1] for name, names in found.items() if names},
            self._outer,
        )
        return {
            name: _variable(name, array, dimensions[name], without=names and names[0])
            for (name, array), names in zip(arrays.items(), found.values(), strict=True)
        }

    def get_attrs(self) -> dict[str, Any]:
        """Return none: a directory has no attributes."""
        return {}


def _variable(name: str, array: Array, dimensions: tuple[str, ...], without: str | None) -> xarray.Variable:
    """Return an array as a variable, without the attribute that names its dimensions."""
    lazy = RemoteArray(array)
    attrs = {key: value for key, value in array.attrs.items() if key != without}
    for key in _FILLS:
        if key in attrs:
            attrs |= _fill(name, key, attrs.pop(key), lazy.dtype)
    encoding = {
        "chunks": array.chunks,
        "preferred_chunks": dict(zip(dimensions, (max(1, chunk) for chunk in array.chunks), strict=True)),
        "source": array.url,
        "etag": array.etag,
    }
    return xarray.Variable(dimensions, indexing.LazilyIndexedArray(lazy), attrs, encoding)


def _fill(name: str, key: str, value: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return what stands for missing data as an element of the array, or several; nothing if it is none."""
    if dtype.kind not in "iufc":
        return {key: value}
    try:
        known = [_NOT_IN_JSON.get(one, one) for one in (value if isinstance(value, list) else [value])]
        return {key: np.array(known, dtype) if isinstance(value, list) else dtype.type(known[0])}
    except (TypeError, ValueError, OverflowError):
        warnings.warn(f"{key} {value!r} of {name!r} is no {dtype}: left out", stacklevel=2)
        return {}


def _spread(key: indexing.ExplicitIndexer) -> float:
    """Return how many times as large the smallest box around a selection is; 0 where it is one anyway."""
    lists = [part for part in key.tuple if isinstance(part, np.ndarray)]
    if not lists or not all(part.size for part in lists):
        return 0
    box = math.prod(int(part.max()) - int(part.min()) + 1 for part in lists)
    if isinstance(key, indexing.OuterIndexer):
        return box / math.prod(part.size for part in lists)
    return box / math.prod(np.broadcast_shapes(*(part.shape for part in lists)))
