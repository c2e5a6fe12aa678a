"""The stored bytes of a version: whole, by ranges, to be read or saved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from caterva2.errors import Unavailable
from caterva2.http.conditional import honours_range, not_modified
from caterva2.http.dataset import DataService, here_of, lasting_headers
from caterva2.http.ranges import ByteRange, Multipart, parse_range
from caterva2.model.manifest import Head
from caterva2.source.protocol import Source

__all__ = ["WHOLE_BYTES", "piecewise", "stored_bytes", "stream_of"]

MEDIA_TYPE = "application/octet-stream"

WHOLE_BYTES = 1 << 20
"""Answers up to this size, in bytes, are made before they begin: what fails then fails with a status."""


async def stored_bytes(
    service: DataService, request: Request, head: Head, *, attach: bool = False
) -> Response:
    """Answer with the bytes of a version's file: 200, 206 or 304.

    Parameters
    ----------
    service : DataService
    request : Request
        GET, possibly with ``Range``, ``If-Range``, ``If-None-Match``; HEAD has no ranges.
    head : Head
    attach : bool
        Tell browsers to save it under its name.

    Raises
    ------
    InvalidRange, Changed, Unavailable, NotCached, IntegrityError
    """
    headers = lasting_headers(service, request, head) | {"Accept-Ranges": "bytes"}
    if not_modified(request.headers, head.etag):
        return Response(status_code=304, headers=headers)
    if attach:
        headers["Content-Disposition"] = _attachment(head.path.name.rsplit("/", 1)[-1])
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(head.size)}, media_type=MEDIA_TYPE)
    ranges = None
    if request.method == "GET" and honours_range(request.headers, head.etag):
        ranges = parse_range(request.headers.get("range"), head.size)
    source: Source = service.source
    if here := here_of(service, request):
        source = here
        for start, stop in [(0, head.size)] if ranges is None else [(one.start, one.stop) for one in ranges]:
            await here.require(head, start, stop)
    if ranges is None:
        body = stream_of(source, head, 0, head.size)
        return await piecewise(body, head.size, headers, MEDIA_TYPE)
    if len(ranges) == 1:
        one = ranges[0]
        headers["Content-Range"] = one.content_range(head.size)
        body = stream_of(source, head, one.start, one.stop)
        return await piecewise(body, one.size, headers, MEDIA_TYPE, status=206)

    def stream(one: ByteRange) -> AsyncGenerator[bytes]:
        return stream_of(source, head, one.start, one.stop)

    multipart = Multipart(ranges, head.size, MEDIA_TYPE)
    return await piecewise(
        multipart.body(stream), multipart.length, headers, multipart.content_type, status=206
    )


def stream_of(source: Source, head: Head, start: int, stop: int) -> AsyncGenerator[bytes]:
    """Return the bytes of a version between two offsets, as `Source.stream` yields them."""
    # All sources are generators; their contract does not promise that they can be closed.
    return cast("AsyncGenerator[bytes]", source.stream(head, start, stop))


async def piecewise(
    body: AsyncGenerator[bytes], nbytes: int, headers: dict[str, str], media_type: str, *, status: int = 200
) -> Response:
    """Answer with a body that comes in pieces.

    Small ones are collected. Of a larger one the first piece is there before the answer begins: what can fail
    mostly fails with a status. What fails later breaks the connection off, since the length that was promised
    cannot be kept.

    Parameters
    ----------
    body : async generator of bytes
    nbytes : int
        Its length.
    headers : dict
    media_type : str
    status : int

    Raises
    ------
    Unavailable
        If the body is shorter or longer than it should be.
    Caterva2Error
        Whatever the body raises.
    """
    if nbytes <= WHOLE_BYTES:
        async with aclosing(body):
            data = b"".join([piece async for piece in body])
        if len(data) != nbytes:
            raise Unavailable(f"the source gave {len(data)} bytes where {nbytes} were asked for")
        return Response(data, status, headers, media_type)
    try:
        first = await anext(body)
    except StopAsyncIteration:
        raise Unavailable(f"the source gave nothing where {nbytes} bytes were asked for") from None
    return _Stream(_chain(first, body), status, headers | {"Content-Length": str(nbytes)}, media_type)


class _Stream(StreamingResponse):
    """A streamed answer that closes its body when the client goes, not when the garbage collector comes."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(cast("AsyncGenerator[bytes]", self.body_iterator)):
            await super().stream_response(send)


async def _chain(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield first
        async for data in rest:
            await asyncio.sleep(0)  # a peer that takes all at once would leave nobody else a turn
            yield data


def _attachment(name: str) -> str:
    """Return the ``Content-Disposition`` of a file (RFC 6266), with a name in ASCII for old clients."""
    plain = "".join(char if " " <= char <= "~" and char not in '"%\\' else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
