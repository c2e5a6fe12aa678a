"""A bound on the memory that large answers take at one time."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Budget", "Lease"]

SLOW_S = 2.0
"""A part of an answer that is still not sent after so long keeps others waiting no more, in seconds."""


class Lease:
    """Memory that was granted; give it back once it is free."""

    def __init__(self, budget: Budget, nbytes: int) -> None:
        self._budget = budget
        self._nbytes = nbytes

    def release(self) -> None:
        """Give the memory back; does nothing the second time."""
        nbytes, self._nbytes = self._nbytes, 0
        if nbytes:
            self._budget.give_back(nbytes)

    def release_later(self) -> None:
        """Give the memory back after `SLOW_S` at the latest: a slow client must not block the others."""
        asyncio.get_running_loop().call_later(SLOW_S, self.release)


class Budget:
    """Grants memory in the order in which it is asked for. Belongs to one event loop.

    Parameters
    ----------
    limit_bytes : int
        Most that is granted at one time. Who asks for more than this is alone.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.granted_bytes = 0

    async def lease(self, nbytes: int) -> Lease:
        """Wait for memory.

        Parameters
        ----------
        nbytes : int

        Returns
        -------
        Lease
            To be released.
        """
        nbytes = min(nbytes, self._limit_bytes)
        if self._waiting or self.granted_bytes + nbytes > self._limit_bytes:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((nbytes, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it was granted before this was cancelled
                    self.give_back(nbytes)
                else:
                    self._grant()  # drops it, and lets those behind it pass
                raise
        else:
            self.granted_bytes += nbytes
        return Lease(self, nbytes)

    def give_back(self, nbytes: int) -> None:
        """Take back what a lease was granted."""
        self.granted_bytes -= nbytes
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            nbytes, turn = self._waiting[0]
            if not turn.cancelled():
                if self.granted_bytes + nbytes > self._limit_bytes:
                    return
                self.granted_bytes += nbytes
                turn.set_result(None)
            self._waiting.popleft()
