"""Byte ranges over HTTP: which to ask for, and the reading of what comes back (RFC 9110, section 14).

Nothing here does I/O: `plan` turns extents into requests, `Content-Range` and ``multipart/byteranges`` bodies
are parsed from pieces of any size as they arrive, into buffers whose size was known before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import Message

from caterva2.model.extents import Extent

__all__ = [
    "MAX_RANGES",
    "REQUEST_BYTES",
    "BadAnswer",
    "MultipartReader",
    "Run",
    "SingleReader",
    "boundary_of",
    "parse_content_range",
    "plan",
    "range_header",
]

MAX_RANGES = 64
"""Most ranges in one request."""

REQUEST_BYTES = 8 * 1024 * 1024
"""About how much one request asks for, in bytes; a larger extent has a request of its own."""

MAX_PART_HEADER = 4096
"""Longest header of a part, in bytes."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")


class BadAnswer(Exception):
    """The other side answered something else than was asked for; asking again may help."""


@dataclass(frozen=True, slots=True)
class Run:
    """Extents that are asked for as one byte range.

    Attributes
    ----------
    start, stop : int
        First byte and one past the last.
    extents : tuple of Extent
        Ascending by offset, all within the range.
    """

    start: int
    stop: int
    extents: tuple[Extent, ...]

    @property
    def size(self) -> int:
        """Bytes asked for."""
        return self.stop - self.start


def plan(extents: Iterable[Extent], gap_bytes: int) -> list[list[Run]]:
    """Decide what to ask for, so that all extents come in few requests.

    Parameters
    ----------
    extents : iterable of Extent
        In any order.
    gap_bytes : int
        Extents that are this near become one range; what lies between is read and thrown away.

    Returns
    -------
    list of list of Run
        For each request its ranges, ascending: at most `MAX_RANGES`, and about `REQUEST_BYTES` of body.
    """
    requests: list[list[Run]] = []
    request_bytes = 0
    for run in _runs(sorted(extents, key=lambda extent: extent.offset), gap_bytes):
        full = requests and (len(requests[-1]) == MAX_RANGES or request_bytes + run.size > REQUEST_BYTES)
        if not requests or full:
            requests.append([])
            request_bytes = 0
        requests[-1].append(run)
        request_bytes += run.size
    return requests


def _runs(extents: Sequence[Extent], gap_bytes: int) -> list[Run]:
    runs: list[Run] = []
    first = 0
    stop = extents[0].stop if extents else 0
    for number, extent in enumerate(extents[1:], start=1):
        near = extent.offset - stop <= gap_bytes
        if near and max(stop, extent.stop) - extents[first].offset <= REQUEST_BYTES:
            stop = max(stop, extent.stop)
            continue
        runs.append(Run(extents[first].offset, stop, tuple(extents[first:number])))
        first, stop = number, extent.stop
    if extents:
        runs.append(Run(extents[first].offset, stop, tuple(extents[first:])))
    return runs


def range_header(runs: Sequence[Run]) -> str:
    """Return the value of ``Range`` that asks for some runs."""
    return "bytes=" + ",".join(f"{run.start}-{run.stop - 1}" for run in runs)


def parse_content_range(value: str | None) -> tuple[int, int, int | None]:
    """Parse ``Content-Range``.

    Returns
    -------
    start, stop, size : int, int, int or None
        `stop` is exclusive; `size` of the whole file, None where it is not said.

    Raises
    ------
    BadAnswer
        If it is absent or malformed.
    """
    match = _CONTENT_RANGE.match(value or "")
    if not match:
        raise BadAnswer(f"Content-Range {value!r} instead of a byte range")
    first, last, size = match.groups()
    return int(first), int(last) + 1, None if size == "*" else int(size)


def check_range(value: str | None, run: Run, file_size: int) -> None:
    """Check that a ``Content-Range`` names a run of a file of some size.

    Raises
    ------
    BadAnswer
        If it does not.
    """
    start, stop, size = parse_content_range(value)
    if (start, stop) != (run.start, run.stop) or size not in (None, file_size):
        raise BadAnswer(f"range {value!r} where bytes {run.start}-{run.stop - 1}/{file_size} were asked for")


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a ``multipart/byteranges`` answer.

    Raises
    ------
    BadAnswer
        If it is of another type, or has no boundary.
    """
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/byteranges" or not isinstance(boundary, str):
        raise BadAnswer(f"an answer of type {content_type!r} where several ranges were asked for")
    return boundary.encode("latin-1", "replace")


class SingleReader:
    """Collects the body of a 206 of one range."""

    def __init__(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._filled = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises
        ------
        BadAnswer
            If it is longer than it should be.
        """
        stop = self._filled + len(data)
        if stop > len(self._buffer):
            raise BadAnswer(f"more than the {len(self._buffer)} bytes asked for")
        self._buffer[self._filled : stop] = data
        self._filled = stop

    def close(self) -> list[bytearray]:
        """Return the one range.

        Raises
        ------
        BadAnswer
            If the body ended early.
        """
        if self._filled != len(self._buffer):
            raise BadAnswer(f"{self._filled} bytes where {len(self._buffer)} were asked for")
        return [self._buffer]


class MultipartReader:
    """Parses a ``multipart/byteranges`` body as it arrives.

    Parameters
    ----------
    boundary : bytes
    runs : sequence of Run
        What was asked for; the parts must come in this order.
    file_size : int
        Size of the whole file, in bytes.
    """

    def __init__(self, boundary: bytes, runs: Sequence[Run], file_size: int) -> None:
        self._delimiter = b"--" + boundary
        self._runs = runs
        self._file_size = file_size
        self._parts: list[bytearray] = []
        self._filled = 0  # bytes of the last part that have arrived
        self._pending = b""  # start of a part's header that is not complete
        self._in_body = False

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises
        ------
        BadAnswer
            If it is not what was asked for.
        """
        view = memoryview(data)
        while view:
            view = self._take_body(view) if self._in_body else self._take_header(view)

    def _take_body(self, view: memoryview) -> memoryview:
        part = self._parts[-1]
        count = min(len(view), len(part) - self._filled)
        part[self._filled : self._filled + count] = view[:count]
        self._filled += count
        self._in_body = self._filled < len(part)
        return view[count:]

    def _take_header(self, view: memoryview) -> memoryview:
        if len(self._parts) == len(self._runs):
            # what follows the last part is the end mark; it is checked when all of it is here
            self._pending += bytes(view[:MAX_PART_HEADER])
            return view[:0]
        before = len(self._pending)
        text = self._pending + bytes(view[:MAX_PART_HEADER])
        stop = text.find(b"\r\n\r\n")
        if stop < 0:
            if len(text) > MAX_PART_HEADER:
                raise BadAnswer("a part without an end of its header")
            self._pending = text
            return view[len(text) - before :]
        self._start_part(text[:stop])
        self._pending = b""
        return view[stop + 4 - before :]

    def _start_part(self, text: bytes) -> None:
        delimiter, *fields = text.lstrip(b"\r\n").split(b"\r\n")
        if delimiter.rstrip(b" \t") != self._delimiter:
            raise BadAnswer(f"{len(self._parts)} parts where {len(self._runs)} were asked for")
        named = {
            name.strip().lower(): value.strip()
            for name, _, value in (field.partition(b":") for field in fields)
        }
        run = self._runs[len(self._parts)]
        check_range(named.get(b"content-range", b"").decode("latin-1"), run, self._file_size)
        self._parts.append(bytearray(run.size))
        self._filled, self._in_body = 0, True

    def close(self) -> list[bytearray]:
        """Return the ranges, in the order asked for.

        Raises
        ------
        BadAnswer
            If the body ended early or goes on where it should end.
        """
        complete = len(self._parts) == len(self._runs) and not self._in_body
        if not complete or not self._pending.lstrip(b"\r\n").startswith(self._delimiter + b"--"):
            raise BadAnswer(f"a body that breaks off in part {len(self._parts)} of {len(self._runs)}")
        return self._parts
