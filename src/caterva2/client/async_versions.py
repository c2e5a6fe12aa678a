"""What `caterva2.client.versions` does, on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from caterva2.client import protocol
from caterva2.client.async_transport import AsyncBody, AsyncTransport
from caterva2.client.protocol import Request
from caterva2.client.transport import BrokenOff
from caterva2.client.versions import ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S, NEXT_WAIT_S
from caterva2.errors import Changed, Unavailable

__all__ = ["newest_of", "next_etag", "read_version"]

T = TypeVar("T")


async def read_version(
    transport: AsyncTransport,
    request: Request,
    path: str,
    etag: str | None,
    read: Callable[[AsyncBody], Awaitable[T]],
    *,
    nbytes: int = 0,
) -> T:
    """Send a request that names a version, and return what is read of its answer.

    See `caterva2.client.versions.read_version`. Without an etag it is of what is current.
    """
    retries = transport.retries()
    while True:
        try:
            async with transport.open(request, nbytes=nbytes, retries=retries) as body:
                return await read(body)
        except BrokenOff:  # perhaps since it was replaced: then the next answer says so
            if not await retries.again():
                raise
        except Changed as error:
            current = error.current_etag
            if current is None and etag is not None:
                current = await next_etag(transport, path, etag)
            raise Changed(path, etag, current) from error


async def next_etag(transport: AsyncTransport, path: str, etag: str) -> str | None:
    """Return the version that is current, as soon as it is another one.

    See `caterva2.client.versions.next_etag`.
    """
    deadline, pause_s = time.monotonic() + NEXT_WAIT_S, FIRST_PAUSE_S
    while True:
        try:
            current: str = protocol.read_info(await transport.call(protocol.ask_info(path)))["etag"]
        except (Changed, Unavailable):
            current = etag
        if current != etag:
            return current
        if time.monotonic() + pause_s > deadline:
            return None
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def newest_of(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what an attempt does that opens a dataset and reads it, made again if it was replaced meanwhile.

    Raises
    ------
    Changed
        If it was `ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except Changed:
            continue
    return await attempt()
