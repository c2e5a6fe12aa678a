"""Names of the dimensions of arrays: as their attributes have them, and made to fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["DIMENSION_ATTRIBUTES", "dimensions_together", "stored_dimensions"]

DIMENSION_ATTRIBUTES = ("_ARRAY_DIMENSIONS", "dimensions", "dims")
"""Attributes that name dimensions, the first one that fits; the first of them is the convention of Zarr 2."""


def stored_dimensions(attrs: Mapping[str, Any], ndim: int) -> tuple[str, tuple[str, ...]] | None:
    """Return what an array says its dimensions are called.

    Parameters
    ----------
    attrs : mapping
        Its attributes. Names are a list of texts, or one text with spaces or commas between them.
    ndim : int
        How many dimensions it has.

    Returns
    -------
    (str, tuple of str) or None
        The attribute that has them, and the names; None if none has one, and another, for each dimension.
    """
    for attribute in DIMENSION_ATTRIBUTES:
        names = attrs.get(attribute)
        if isinstance(names, str):
            names = names.replace(",", " ").split()
        if (
            isinstance(names, list | tuple)
            and len(names) == len(set(map(str, names))) == ndim
            and all(isinstance(name, str) and name for name in names)
        ):
            return attribute, tuple(names)
    return None


def dimensions_together(
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, tuple[str, ...]],
    outer: Mapping[str, int] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return names for the dimensions of arrays that are shown together, where a name stands for one length.

    Dimensions without a name are ``dim_0``, ``dim_1`` ..., but that of a one-dimensional array is the
    dimension that has its name, if others have one of that name. Of those that share a name and not the
    length, all are called ``<array>_<name>`` but those of the length that the name has otherwise: outside, or
    as a coordinate (the one-dimensional array of that name).

    Parameters
    ----------
    shapes : mapping
        Shape of each array, by its name.
    stored : mapping
        Names of the dimensions of those that have some.
    outer : mapping, optional
        Lengths of dimensions outside that are seen here as well.
    """
    named = {name for names in stored.values() for name in names}
    wanted = {
        array: stored.get(array) or ((array,) if len(shape) == 1 and array in named else _numbered(shape))
        for array, shape in shapes.items()
    }
    lengths = _lengths(shapes, wanted) | dict(outer or {})
    return {
        array: tuple(
            name if lengths[name] == length else f"{array}_{name}"
            for name, length in zip(names, shapes[array], strict=True)
        )
        for array, names in wanted.items()
    }


def _numbered(shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"dim_{number}" for number in range(len(shape)))


def _lengths(
    shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[str, ...]]
) -> dict[str, int | None]:
    """Return the length that each name stands for; None if the arrays do not agree."""
    found: dict[str, set[int]] = {}
    for array, names in wanted.items():
        for name, length in zip(names, shapes[array], strict=True):
            found.setdefault(name, set()).add(length)
    return {
        name: shapes[name][0] if wanted.get(name) == (name,) else lengths.pop() if len(lengths) == 1 else None
        for name, lengths in found.items()
    }
