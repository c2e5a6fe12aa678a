"""Byte ranges, RFC 9110 section 14."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from caterva2.errors import InvalidRange

__all__ = ["MAX_RANGES", "ByteRange", "Multipart", "parse_range"]

MAX_RANGES = 64
"""Most ranges in one request."""

_SPEC = re.compile(r"([0-9]*)-([0-9]*)\Z")
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start <= offset < stop`` of a file.

    Attributes
    ----------
    start : int
        Inclusive.
    stop : int
        Exclusive; greater than `start`.
    """

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Return the value of ``Content-Range`` in a file of some size."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(value: str | None, size: int) -> list[ByteRange] | None:
    """Parse a ``Range`` header.

    Parameters
    ----------
    value : str or None
    size : int
        Size of the file, in bytes.

    Returns
    -------
    list of ByteRange or None
        In the order asked for, those that begin behind the end left out. None if there is no header or its
        unit or form is another: it is ignored then, as the RFC says.

    Raises
    ------
    InvalidRange
        If none can be satisfied, there are more than `MAX_RANGES`, or together they are longer than the
        file (overlapping ranges would make a small request a large answer).
    """
    if value is None:
        return None
    unit, _, specs = value.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    parts = [part for text in specs.split(",") if (part := text.strip(" \t"))]
    if len(parts) > MAX_RANGES:
        raise InvalidRange(f"{len(parts)} ranges in one request, the limit is {MAX_RANGES}", size)
    ranges = []
    for part in parts:
        limits = _limits(part, size)
        if limits is None:
            return None
        start, stop = limits
        if start < stop:
            ranges.append(ByteRange(start, stop))
    if not parts:
        return None
    if not ranges:
        raise InvalidRange(f"{value!r} is outside of the file, which has {size} bytes", size)
    if sum(one.size for one in ranges) > size:
        raise InvalidRange("the ranges overlap: together they are longer than the file", size)
    return ranges


def _limits(spec: str, size: int) -> tuple[int, int] | None:
    """Return start and stop of one range, not yet compared with each other; None if it is malformed."""
    match = _SPEC.match(spec)
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - _number(match[2])), size
    if not match[2]:
        return _number(match[1]), size
    first, last = _number(match[1]), _number(match[2])
    return (first, min(size, last + 1)) if first <= last else None


def _number(digits: str) -> int:
    """Return a number; one that no file reaches if it has very many digits."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


class Multipart:
    """A ``multipart/byteranges`` body, whose length is known before it is made.

    Parameters
    ----------
    ranges : sequence of ByteRange
    size : int
        Size of the file, in bytes.
    media_type : str
        Of the file.
    """

    def __init__(self, ranges: Sequence[ByteRange], size: int, media_type: str) -> None:
        self._boundary = secrets.token_hex(16)
        self._ranges = ranges
        self._heads = [
            (
                f"--{self._boundary}\r\nContent-Type: {media_type}\r\n"
                f"Content-Range: {one.content_range(size)}\r\n\r\n"
            ).encode()
            for one in ranges
        ]
        self._end = f"--{self._boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        """Value of ``Content-Type``."""
        return f"multipart/byteranges; boundary={self._boundary}"

    @property
    def length(self) -> int:
        """Bytes of the body."""
        parts = sum(len(head) + one.size + 2 for head, one in zip(self._heads, self._ranges, strict=True))
        return parts + len(self._end)

    async def body(self, stream: Callable[[ByteRange], AsyncGenerator[bytes]]) -> AsyncGenerator[bytes]:
        """Yield the body, with the bytes of each range from `stream`; the first piece has some already."""
        lead = b""
        for head, one in zip(self._heads, self._ranges, strict=True):
            lead += head
            async with aclosing(stream(one)) as pieces:
                async for data in pieces:
                    yield lead + data if lead else data
                    lead = b""
            lead += b"\r\n"
        yield lead + self._end
