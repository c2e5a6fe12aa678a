"""A bound on the memory that large answers take at one time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

__all__ = ["Budget", "BudgetStats", "Lease"]

SLOW_S = 2.0
"""Memory that can be taken back is, when others wait for it and it was held for so long, in seconds."""


@dataclass(slots=True)
class BudgetStats:
    """What a budget grants.

    Attributes
    ----------
    waiting : int
        Answers that wait for memory.
    revoked : int
        Times that memory was taken back from an answer that was sent slowly.
    """

    waiting: int = 0
    revoked: int = 0


class Lease:
    """Memory that was granted; give it back once it is free. A context manager that does so."""

    def __init__(self, budget: Budget, nbytes: int) -> None:
        self._budget = budget
        self._nbytes = nbytes

    def release(self) -> None:
        """Give the memory back; does nothing the second time."""
        nbytes, self._nbytes = self._nbytes, 0
        if nbytes:
            self._budget._give_back(self, nbytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def revocable(self, free: Callable[[], None]) -> None:
        """Let the memory be taken back in `SLOW_S`, if somebody waits for it then.

        Parameters
        ----------
        free : callable
            Frees it; called at most once, and never after `release`.
        """
        if self._nbytes:
            self._budget._may_revoke(self, free)


class Budget:
    """Grants memory in the order in which it is asked for. Belongs to one event loop.

    What is granted for as long as a client takes to read must be revocable: a slow client must not block
    the others.

    Parameters
    ----------
    limit_bytes : int
        Most that is granted at one time. Who asks for more than this is alone.

    Attributes
    ----------
    limit_bytes, granted_bytes : int
    stats : BudgetStats
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.granted_bytes = 0
        self.stats = BudgetStats()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._revocable: dict[Lease, tuple[float, Callable[[], None]]] = {}  # by age: since when, how
        self._timer: asyncio.TimerHandle | None = None

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
        nbytes = min(nbytes, self.limit_bytes)
        if self._waiting or not self._fits(nbytes):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((nbytes, turn))
            self._grant()
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it was granted before this was cancelled
                    self.granted_bytes -= nbytes
                self._grant()  # drops it, and lets those behind it pass
                raise
        else:
            self.granted_bytes += nbytes
        return Lease(self, nbytes)

    def _fits(self, nbytes: int) -> bool:
        return self.granted_bytes + nbytes <= self.limit_bytes

    def _give_back(self, lease: Lease, nbytes: int) -> None:
        self._revocable.pop(lease, None)
        self.granted_bytes -= nbytes
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            nbytes, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._fits(nbytes):
                    break
                self.granted_bytes += nbytes
                turn.set_result(None)
            self._waiting.popleft()
        self.stats.waiting = len(self._waiting)
        self._watch()

    # -- taking back -------------------------------------------------------------------------------

    def _may_revoke(self, lease: Lease, free: Callable[[], None]) -> None:
        self._revocable[lease] = asyncio.get_running_loop().time(), free
        self._watch()

    def _watch(self) -> None:
        """See to it that the oldest is taken back in time, while somebody waits."""
        if self._waiting and self._revocable and self._timer is None:
            since, _ = next(iter(self._revocable.values()))
            self._timer = asyncio.get_running_loop().call_at(since + SLOW_S, self._revoke)

    def _revoke(self) -> None:
        self._timer = None
        if self._waiting and self._revocable:
            lease, (since, free) = next(iter(self._revocable.items()))
            if asyncio.get_running_loop().time() >= since + SLOW_S:
                self.stats.revoked += 1
                del self._revocable[lease]
                free()
                lease.release()
        self._watch()
