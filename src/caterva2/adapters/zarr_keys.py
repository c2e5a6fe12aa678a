"""Keys of a Zarr store, and the parts of objects that are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

__all__ = ["JSON", "Name", "bounds", "parents", "span"]

JSON = "zarr.json"
"""Last part of the key of what is said of an array or a group."""

_NAME = re.compile(
    rf"(?:(?P<node>.+)/)?(?:(?P<json>{re.escape(JSON)})|c(?P<chunk>(?:/(?:0|[1-9][0-9]*))*))\Z"
)


@dataclass(frozen=True, slots=True)
class Name:
    """What a key names.

    Attributes
    ----------
    node : str
        The array or the group; empty for the one at the top.
    chunk : tuple of int or None
        Coordinates of a chunk; None for the metadata.
    """

    node: str
    chunk: tuple[int, ...] | None

    @classmethod
    def parse(cls, key: str) -> Name | None:
        """Return what a key names; None if it is the key of neither a chunk nor metadata."""
        match = _NAME.match(key)
        if match is None:
            return None
        chunk = None if match["json"] else tuple(map(int, filter(None, match["chunk"].split("/"))))
        return cls(match["node"] or "", chunk)


def parents(key: str) -> Iterator[str]:
    """Yield the nodes that a key is below, outermost first, but for the one at the top."""
    for number, character in enumerate(key):
        if character == "/":
            yield key[:number]


def bounds(part: ByteRequest | None) -> tuple[int, int | None]:
    """Return where a part of an object begins and ends; negative from its end, None at its end.

    Raises
    ------
    ValueError
        If it is no part.
    """
    match part:
        case None:
            return 0, None
        case RangeByteRequest():
            return part.start, part.end
        case OffsetByteRequest():
            return part.offset, None
        case SuffixByteRequest():
            return -part.suffix, None
    raise ValueError(f"Unexpected byte_range, got {part}.")


def span(part: ByteRequest | None, size: int) -> tuple[int, int]:
    """Return which bytes of an object of some size a part has.

    Raises
    ------
    ValueError
        As `bounds` does.
    """
    start, stop, _ = slice(*bounds(part)).indices(size)
    return start, max(start, stop)
