"""The stored bytes of a version: whole, by ranges, to be read or saved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from caterva2.errors import Caterva2Error
from caterva2.http.conditional import honours_range, not_modified
from caterva2.http.dataset import DataService, headers_of
from caterva2.http.ranges import ByteRange, Multipart, parse_range
from caterva2.model.manifest import Head

__all__ = ["stored_bytes"]

MEDIA_TYPE = "application/octet-stream"

log = structlog.get_logger(__name__)


async def stored_bytes(
    service: DataService, request: Request, head: Head, *, attach: bool = False
) -> Response:
    """Answer with the bytes of a version's file: 200, 206 or 304.

    The first piece is there before the answer begins: what can fail mostly fails with a status. What fails
    later breaks the connection off, since the length that was promised cannot be kept.

    Parameters
    ----------
    service : DataService
    request : Request
        GET or HEAD, possibly with ``Range``, ``If-Range``, ``If-None-Match``.
    head : Head
    attach : bool
        Tell browsers to save it under its name.

    Raises
    ------
    InvalidRange, Changed, Unavailable, IntegrityError
    """
    headers = headers_of(service, head) | {"Accept-Ranges": "bytes"}
    if not_modified(request.headers, head.etag):
        return Response(status_code=304, headers=headers)
    if attach:
        headers["Content-Disposition"] = (
            f"attachment; filename*=UTF-8''{quote(head.path.name.rsplit('/', 1)[-1])}"
        )
    ranges = None
    if honours_range(request.headers, head.etag):
        ranges = parse_range(request.headers.get("range"), head.size)
    reader = _Pieces(service, head)
    if ranges is None:
        headers["Content-Length"] = str(head.size)
        status, media_type, first = 200, MEDIA_TYPE, ByteRange(0, head.size)
        body = reader.stream(first)
    elif len(ranges) == 1:
        first = ranges[0]
        headers["Content-Length"] = str(first.size)
        headers["Content-Range"] = first.content_range(head.size)
        status, media_type, body = 206, MEDIA_TYPE, reader.stream(first)
    else:
        multipart = Multipart(ranges, head.size, MEDIA_TYPE)
        headers["Content-Length"] = str(multipart.length)
        status, media_type, first = 206, multipart.content_type, ranges[0]
        body = multipart.body(reader.stream)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    await reader.begin(first)
    return StreamingResponse(body, status, headers, media_type)


class _Pieces:
    """Streams ranges of a version; the first piece of the first one is read ahead."""

    def __init__(self, service: DataService, head: Head) -> None:
        self._source = service.source
        self._head = head
        self._begun: tuple[ByteRange, bytes, AsyncIterator[bytes]] | None = None

    async def begin(self, one: ByteRange) -> None:
        if one.size:
            stream = self._source.stream(self._head, one.start, one.stop)
            self._begun = (one, await anext(stream), stream)

    async def stream(self, one: ByteRange) -> AsyncIterator[bytes]:
        if not one.size:
            return
        try:
            if self._begun and self._begun[0] == one:
                _, first, rest = self._begun
                self._begun = None
                yield first
            else:
                rest = self._source.stream(self._head, one.start, one.stop)
            async with aclosing(rest):  # type: ignore[type-var]  # sources stream with generators
                async for data in rest:
                    yield data
        except Caterva2Error as error:
            log.warning("answer_broken_off", dataset=str(self._head.path), reason=str(error))
            raise
