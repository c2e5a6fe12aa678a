"""When the version that was asked for is gone: which one is next, and trying again with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from caterva2.client import protocol
from caterva2.client.progress import Meter
from caterva2.client.protocol import Request
from caterva2.client.transport import Body, BrokenOff, Transport
from caterva2.client.underway import UnderWay
from caterva2.errors import Changed, Unavailable

__all__ = ["newest_of", "next_etag", "read_version"]

ATTEMPTS = 3
"""How often a dataset is opened anew that is replaced between that and its reading."""

NEXT_WAIT_S = 3.0
"""How long the next version is waited for while a file is being replaced, in seconds."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5
"""Pauses between looks for it, in seconds: each twice the one before."""

T = TypeVar("T")


def read_version(
    transport: Transport,
    request: Request,
    path: str,
    etag: str,
    read: Callable[[Body], T],
    *,
    nbytes: int = 0,
    under_way: UnderWay | None = None,
    meter: Meter | None = None,
) -> T:
    """Send a request that names a version, and return what is read of its answer.

    Parameters
    ----------
    transport : Transport
    request : Request
    path, etag : str
        The version that it names.
    read : callable
        Reads the answer; called again if that broke off.
    nbytes, under_way
        As for `Transport.open`.
    meter : Meter, optional
        Counts what has come of `nbytes`.

    Raises
    ------
    Changed
        With the etag asked for and the current one, if the version is gone. A version that is being replaced
        has no next one yet: that is waited for, `NEXT_WAIT_S` at most.
    Caterva2Error
        As `Transport.open` and `read` do.
    """
    retries = transport.retries()
    while True:
        try:
            with transport.open(request, nbytes=nbytes, retries=retries, under_way=under_way) as body:
                if meter is None:
                    return read(body)
                with body.counted(meter, nbytes):
                    return read(body)
        except BrokenOff:  # perhaps since it was replaced: then the next answer says so
            if not retries.wait(under_way):
                raise
        except Changed as error:
            current = error.current_etag or next_etag(transport, path, etag, under_way)
            raise Changed(path, etag, current) from error


def next_etag(transport: Transport, path: str, etag: str, under_way: UnderWay | None = None) -> str | None:
    """Return the version that is current, as soon as it is another one.

    Parameters
    ----------
    transport : Transport
    path, etag : str
    under_way : UnderWay, optional
        Lets another thread end the waiting.

    Returns
    -------
    str or None
        None if there is none within `NEXT_WAIT_S`.

    Raises
    ------
    NotFound
        If the dataset was deleted.
    """
    stopped = threading.Event() if under_way is None else under_way.stopped
    deadline, pause_s = time.monotonic() + NEXT_WAIT_S, FIRST_PAUSE_S
    while True:
        try:
            current: str = protocol.read_info(transport.call(protocol.ask_info(path)))["etag"]
        except (Changed, Unavailable):
            current = etag
        if current != etag:
            return current
        if time.monotonic() + pause_s > deadline or stopped.wait(pause_s):
            return None
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def newest_of(attempt: Callable[[], T]) -> T:
    """Return what an attempt does that opens a dataset and reads it, made again if it was replaced meanwhile.

    Raises
    ------
    Changed
        If it was `ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except Changed:
            continue
    return attempt()
