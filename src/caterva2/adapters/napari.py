"""napari shows arrays and directories: ``viewer.open("caterva2://host/foo/x.b2nd", plugin="caterva2")``.

It is given arrays that it slices itself: what it draws is read, and little else (it looks at some planes for
the range of the values).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import caterva2
from caterva2.adapters.dimensions import stored_dimensions
from caterva2.adapters.directories import arrays_below, open_arrays, stem
from caterva2.client import Array, Directory, Root, parse_location
from caterva2.errors import InvalidPath, Unsupported
from caterva2.model.selection import Axis, select

__all__ = ["Layer", "View", "get_reader", "read"]

Layer = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: an array or several resolutions of it, its properties, its type."""

_Part = range | int
"""What is selected of a dimension: several indices, or one."""

KINDS = "biuf"
"""Kinds of dtypes that can be drawn: booleans, integers, and real numbers."""


class View:
    """A part of an array that is not read before numpy needs it.

    Of several resolutions napari takes what is seen first, and of that the plane that is shown: a read of the
    one would be of all planes.

    Parameters
    ----------
    array : Array
    parts : sequence of range or int, optional
        What is selected of each dimension; all by default.
    """

    def __init__(self, array: Array, parts: Sequence[_Part] | None = None) -> None:
        self._array = array
        self._parts = tuple(map(range, array.shape)) if parts is None else tuple(parts)
        self.dtype = array.dtype
        self.shape = tuple(len(part) for part in self._parts if isinstance(part, range))
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> View:  # Any: integers, slices, '...' and tuples of them
        axes = iter(select(key, self.shape).axes)
        parts = [_narrowed(part, next(axes)) if isinstance(part, range) else part for part in self._parts]
        return View(self._array, parts)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a remote array cannot be had without a copy")
        return np.asarray(self._array[(*map(_as_key, self._parts), ...)], dtype)


def _narrowed(part: range, axis: Axis) -> _Part:
    if axis.drop:
        return part[axis.start]
    chosen = part[axis.start : axis.stop : axis.step]
    return chosen[::-1] if axis.reverse else chosen


def _as_key(part: _Part) -> int | slice:
    if isinstance(part, int):
        return part
    return slice(part.start, part.stop if part.stop >= 0 else None, part.step)


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Layer]] | None:
    """Return `read`, if it can be tried on what napari is to open. Nothing is asked.

    Parameters
    ----------
    path : str or sequence of str
        URLs, as `caterva2.open` has them.
    """
    try:
        ours = [parse_location(one).path for one in _several(path)]
    except InvalidPath:
        return None
    return read if ours and all(ours) else None


def read(path: str | Sequence[str]) -> list[Layer]:
    """Return an image layer for each array: of those that are named, and of those in named directories.

    The arrays of a directory that are one at several resolutions become one layer. Nothing but metadata is
    read.

    Parameters
    ----------
    path : str or sequence of str
        URLs, as `caterva2.open` has them.

    Raises
    ------
    Unsupported
        If there is nothing that can be drawn: arrays of numbers of two or more dimensions.
    NotFound, InvalidPath, Unavailable, Unauthorized, ConfigError
    """
    layers = [layer for one in _several(path) for layer in _layers(one)]
    if not layers:
        raise Unsupported(f"{path!r} has no array of numbers of two or more dimensions")
    return layers


def _several(path: str | Sequence[str]) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def _layers(url: str) -> list[Layer]:
    found = caterva2.open(url)
    if isinstance(found, Array):
        return [_layer(found)] if _can_be_drawn(found) else []
    if not isinstance(found, Directory | Root):
        return []
    opened = open_arrays(found, arrays_below(found).get("/", []))
    arrays = [array for array in opened.values() if _can_be_drawn(array)]
    by_size = sorted(arrays, key=lambda array: array.size, reverse=True)
    if len(arrays) > 1 and all(itertools.starmap(_is_coarser, itertools.pairwise(by_size))):
        return [_layer(*by_size, name=found.name)]
    return [_layer(array) for array in arrays]


def _can_be_drawn(array: Array) -> bool:
    return array.ndim >= 2 and array.size > 0 and array.dtype.kind in KINDS


def _is_coarser(fine: Array, coarse: Array) -> bool:
    """Return whether an array can be another one at a lower resolution: of an n-th of the length, rounded."""
    return (
        (fine.dtype, fine.ndim) == (coarse.dtype, coarse.ndim)
        and fine.shape != coarse.shape
        and all(
            length in (more // (n := round(more / length)), -(-more // n)) if length <= more else False
            for more, length in zip(fine.shape, coarse.shape, strict=True)
        )
    )


def _layer(array: Array, *coarser: Array, name: str = "") -> Layer:
    properties: dict[str, Any] = {
        "name": name or stem(array.path),
        "metadata": {"url": array.url, "etag": array.etag, "attrs": array.attrs},
        "multiscale": bool(coarser),
    }
    if dimensions := stored_dimensions(array.attrs, array.ndim):
        properties["axis_labels"] = dimensions[1]
    data = [View(level) for level in (array, *coarser)] if coarser else array
    return data, properties, "image"
