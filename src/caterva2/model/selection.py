"""Selections: what part of an array is asked for, in numpy's terms.

The same type comes from a Python key (``array[0, 10:20]``), from the ``slice_`` text of the HTTP API
(``0, 10:20``) and goes back to that text. It needs no numpy.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caterva2.errors import InvalidSelection

__all__ = ["Axis", "Selection", "parse_selection", "select"]

MAX_NDIM = 16

_PART = re.compile(r"\s*(-?\d{1,19})?\s*(?:(:)\s*(-?\d{1,19})?\s*(?:(:)\s*(-?\d{1,19})?\s*)?)?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Axis:
    """The elements selected along one dimension, in increasing order of index.

    Attributes
    ----------
    start : int
        First index, inclusive.
    count : int
        How many indices.
    step : int
        Distance between indices; at least 1.
    reverse : bool
        The result has them in decreasing order (a negative step).
    drop : bool
        An integer was given: `count` is 1 and the dimension is dropped from the result.
    """

    start: int
    count: int
    step: int = 1
    reverse: bool = False
    drop: bool = False

    @property
    def stop(self) -> int:
        """One past the last index selected; equals `start` if nothing is."""
        return self.start + (self.count - 1) * self.step + 1 if self.count else self.start

    def __str__(self) -> str:
        if self.drop:
            return str(self.start)
        if not self.reverse:
            return f"{self.start}:{self.stop}" + (f":{self.step}" if self.step != 1 else "")
        if not self.count:
            return "0:0"
        last = self.start - 1
        return f"{self.stop - 1}:{last if last >= 0 else ''}:{-self.step}"


@dataclass(frozen=True, slots=True)
class Selection:
    """A box, possibly strided, of an array: one `Axis` for each dimension of the array."""

    axes: tuple[Axis, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Elements along each dimension of the array, dropped ones included (as 1)."""
        return tuple([axis.count for axis in self.axes])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return tuple(axis.count for axis in self.axes if not axis.drop)

    @property
    def size(self) -> int:
        """Number of elements selected."""
        return math.prod(self.counts)

    def __str__(self) -> str:
        return ", ".join(map(str, self.axes))


def parse_selection(text: str | None, shape: Sequence[int]) -> Selection:
    """Parse the text of a selection: ``10:20, 5, ::2``.

    Parameters
    ----------
    text : str or None
        Integers (which drop their dimension), ``start:stop:step`` with any of them left out or negative, and
        at most one ``...``, separated by commas. Empty or None selects all.
    shape : sequence of int
        Shape of the array.

    Raises
    ------
    InvalidSelection
        If the text is malformed, has too many parts, a zero step, or an integer out of bounds.
    """
    if text is None or not text.strip():
        return select((), shape)
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]  # as it stands in Python
    parts = inner.split(",")
    if len(parts) > 1 and not parts[-1].strip():
        parts.pop()  # as in a[1,]
    if len(parts) > MAX_NDIM + 1:
        raise InvalidSelection(f"a selection of {len(parts)} parts for an array of {len(shape)} dimensions")
    return select(tuple(_parse_part(part, text) for part in parts), shape)


def _parse_part(part: str, text: str) -> Any:
    if part.isdigit() and part.isascii() and len(part) < 19:
        return int(part)
    match = _PART.match(part)
    if not match:
        if part.strip() == "...":
            return Ellipsis
        raise InvalidSelection(f"{part.strip()!r} in {text!r} is not a selection: write 5, 10:20, ::2 or ...")
    first, colon, stop, _, step = match.groups()
    if colon is None:
        return slice(None) if first is None else int(first)
    return slice(*(None if bound is None else int(bound) for bound in (first, stop, step)))


def select(key: Any, shape: Sequence[int]) -> Selection:  # Any: whatever a user puts between brackets
    """Normalise a Python key, as `numpy.ndarray.__getitem__` reads it.

    Parameters
    ----------
    key : int, slice, Ellipsis or a tuple of them
        Dimensions left out are selected whole.
    shape : sequence of int
        Shape of the array.

    Raises
    ------
    InvalidSelection
        If there are too many indices, an integer is out of bounds, a step is 0, or a part is of another kind
        (None, that is ``newaxis``, lists and masks among them).
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    ellipses = [number for number, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise InvalidSelection("a selection can have one ellipsis ('...') only")
    given = len(parts) - len(ellipses)
    if given > len(shape):
        raise InvalidSelection(f"too many indices: the array has {len(shape)} dimensions, {given} were given")
    where = ellipses[0] if ellipses else len(parts)
    parts[where : where + 1] = [slice(None)] * (len(shape) - given)
    return Selection(
        tuple([_axis(part, length, n) for n, (part, length) in enumerate(zip(parts, shape, strict=True))])
    )


def _axis(part: Any, length: int, dimension: int) -> Axis:
    if type(part) is int and 0 <= part < length:
        return Axis(part, 1, drop=True)
    if part is None:
        raise InvalidSelection("newaxis (None) cannot be selected: add the dimension to the result instead")
    if isinstance(part, slice):
        try:
            start, stop, step = part.indices(length)
        except (TypeError, ValueError) as error:
            raise InvalidSelection(f"dimension {dimension}: {error}") from error
        count = len(range(start, stop, step))
        if step > 0:
            return Axis(start if count else 0, count, step)
        return Axis(start + (count - 1) * step if count else 0, count, -step, reverse=True)
    try:
        if isinstance(part, bool):
            raise TypeError
        index = operator.index(part)
    except TypeError:
        raise InvalidSelection(
            f"dimension {dimension}: {type(part).__name__} cannot select; use integers, slices or '...'"
        ) from None
    if not -length <= index < length:
        raise InvalidSelection(f"index {index} is out of bounds for dimension {dimension} with size {length}")
    return Axis(index % length, 1, drop=True)
