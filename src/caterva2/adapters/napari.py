"""napari shows arrays and directories: ``viewer.open("caterva2://host/foo/x.b2nd", plugin="caterva2")``.

It is given arrays that it slices itself: what it draws is read, and nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import caterva2
from caterva2.adapters.dimensions import stored_dimensions
from caterva2.client import Array, Directory, Root, parse_location
from caterva2.errors import InvalidPath, Unsupported

__all__ = ["Layer", "get_reader", "read"]

Layer = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: an array or several resolutions of it, its properties, its type."""

SUFFIX = ".b2nd"

KINDS = "biuf"
"""Kinds of dtypes that can be drawn: booleans, integers, and real numbers."""


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
    rows = [row for row in found.list() if row.kind == "array" and "/" not in _name(found, row.path)]
    arrays = [array for row in rows if _can_be_drawn(array := found[_name(found, row.path)])]
    by_size = sorted(arrays, key=lambda array: array.size, reverse=True)
    if len(arrays) > 1 and all(itertools.starmap(_is_coarser, itertools.pairwise(by_size))):
        return [_layer(*by_size, name=found.name)]
    return [_layer(array) for array in arrays]


def _name(directory: Directory | Root, path: str) -> str:
    return path.removeprefix(f"{directory.path}/")


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
        "name": name or array.path.rpartition("/")[2].removesuffix(SUFFIX),
        "metadata": {"url": array.url, "etag": array.etag, "attrs": array.attrs},
        "multiscale": bool(coarser),
    }
    if dimensions := stored_dimensions(array.attrs, array.ndim):
        properties["axis_labels"] = dimensions[1]
    return ([array, *coarser] if coarser else array), properties, "image"
