"""Byte ranges, RFC 9110 section 14."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from caterva2.errors import InvalidRange

__all__ = ["MAX_RANGES", "ByteRange", "Multipart", "parse_range"]

MAX_RANGES = 64
"""Most ranges in one request."""

_SPEC = re.compile(r"(\d{0,18})-(\d{0,18})\Z")


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
    ranges, parts = [], specs.split(",")
    if len(parts) > MAX_RANGES:
        raise InvalidRange(f"{len(parts)} ranges in one request, the limit is {MAX_RANGES}", size)
    for part in parts:
        match = _SPEC.match(part.strip())
        if not match or not (match[1] or match[2]):
            return None
        if not match[1]:
            start, stop = max(0, size - int(match[2])), size
        else:
            start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
            if match[2] and int(match[2]) < start:
                return None
        if start < stop:
            ranges.append(ByteRange(start, stop))
    if not ranges:
        raise InvalidRange(f"{value!r} is outside of the file, which has {size} bytes", size)
    if sum(one.size for one in ranges) > size:
        raise InvalidRange("the ranges overlap: together they are longer than the file", size)
    return ranges


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

    async def body(self, stream: Callable[[ByteRange], AsyncIterator[bytes]]) -> AsyncIterator[bytes]:
        """Yield the body, with the bytes of each range from `stream`."""
        for head, one in zip(self._heads, self._ranges, strict=True):
            yield head
            async for data in stream(one):
                yield data
            yield b"\r\n"
        yield self._end
