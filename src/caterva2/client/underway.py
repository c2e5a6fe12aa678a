"""Requests that are under way together: one fails, or the user gives up, and all of them end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

__all__ = ["UnderWay", "run_together"]

T = TypeVar("T")

LOOK_S = 0.1
"""How often one who waits looks after what else it has to do, in seconds."""


class UnderWay:
    """The connections of some requests, which any thread can stop.

    Attributes
    ----------
    stopped : Event
        Set once they are: whoever waits for something else ends then.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._socks: set[socket.socket] = set()

    def add(self, sock: socket.socket) -> None:
        """Note a connection that is used from now on; at its end at once, if all were stopped before."""
        self._socks.add(sock)
        if self.stopped.is_set():
            _shut_down(sock)

    def remove(self, sock: socket.socket) -> None:
        """Forget a connection, which is used no more."""
        self._socks.discard(sock)

    def stop(self) -> None:
        """End what is read now, and what would be later: it sees a broken connection."""
        self.stopped.set()
        self.cut()

    def cut(self) -> None:
        """Break the connections that are used now."""
        for sock in list(self._socks):
            _shut_down(sock)


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def run_together(
    read: Callable[[T, UnderWay], object],
    parts: Sequence[T],
    threads: int,
    *,
    look: Callable[[], object] | None = None,
    under_way: UnderWay | None = None,
) -> None:
    """Read some parts, several at once.

    When one fails, or this thread is interrupted, nobody waits for the others: those that have not begun do
    not, and the connections of those under way are cut.

    Parameters
    ----------
    read : callable
        Reads a part.
    parts : sequence
    threads : int
        How many at once.
    look : callable, optional
        Called now and then, by this thread, while it waits.
    under_way : UnderWay, optional
        What others stop.

    Raises
    ------
    BaseException
        The first that one of them raised.
    """
    under_way = under_way or UnderWay()
    executor = ThreadPoolExecutor(threads, "caterva2-read")
    try:
        _wait([executor.submit(read, part, under_way) for part in parts], look)
    except BaseException:
        under_way.stop()
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def _wait(futures: list[Future[object]], look: Callable[[], object] | None) -> None:
    left = set(futures)
    while left:
        done, left = wait(left, None if look is None else LOOK_S, FIRST_EXCEPTION)
        for future in done:
            future.result()
        if look is not None:
            look()
