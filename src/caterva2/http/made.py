"""Parts of arrays for other services: small enough to be made at once, with a digest of their own.

See `caterva2.source.maker` for who asks for them.
"""

from __future__ import annotations

import re

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from caterva2.errors import TooLarge
from caterva2.frame.geometry import geometry_of
from caterva2.frame.made import LEVELS, chunk_of_array
from caterva2.http.dataset import DataService
from caterva2.model.manifest import Head
from caterva2.model.selection import Selection
from caterva2.source.maker import CHUNK_TYPE, content_digest

__all__ = ["made_chunk"]

MOST_BYTES = 4 * 1024 * 1024
"""Largest part that is made, in bytes, decoded: nobody waits long for a thread that makes one."""

_LEVEL = re.compile(re.escape(CHUNK_TYPE) + r"\s*;\s*level=([0-9])")


async def made_chunk(
    service: DataService, request: Request, head: Head, selection: Selection, headers: dict[str, str]
) -> Response:
    """Answer with a part of an array as a Blosc2 chunk; with its digest, if that is wanted (RFC 9530).

    Raises
    ------
    TooLarge
        If it is larger than `MOST_BYTES`.
    Unsupported, Changed, Unavailable, IntegrityError, Corrupt
    """
    nbytes = selection.size * geometry_of(head).dtype.itemsize
    if nbytes > MOST_BYTES:
        raise TooLarge(nbytes, MOST_BYTES)
    array = await service.reader.array(head, selection)
    level = _level_of(request.headers.get("accept", ""))
    wanted = "sha-256" in request.headers.get("want-content-digest", "")

    def make() -> tuple[bytes, str | None]:
        body = chunk_of_array(head, array, level) if nbytes else b""
        return body, content_digest(body) if wanted else None

    body, digest = await run_in_threadpool(make)
    if digest is not None:
        headers["Content-Digest"] = digest
    return Response(body, headers=headers, media_type=CHUNK_TYPE)


def _level_of(accept: str) -> int:
    match = _LEVEL.search(accept)
    return min(int(match[1]), LEVELS[-1]) if match else LEVELS[1]
