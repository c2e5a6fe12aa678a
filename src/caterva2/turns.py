"""Work on the event loop in turns, so that nobody waits long for theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TypeVar

__all__ = ["TURN_S", "Turn", "in_turns", "runs"]

TURN_S = 0.004
"""How long one turn takes, in seconds: several may come one after the other before a request has its own."""

T = TypeVar("T")


class Turn:
    """A turn on the event loop, which begins now. It is over when it took `TURN_S`, whatever was done in it.

    A number of things to do in a turn would be too much where the machine is slow or busy, and too little
    elsewhere.
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = time.monotonic() + TURN_S

    @property
    def is_over(self) -> bool:
        """Whether others should have theirs."""
        return time.monotonic() >= self._ends

    async def give(self) -> None:
        """If it is over, let others have theirs, and begin the next."""
        if self.is_over:
            await asyncio.sleep(0)
            self._ends = time.monotonic() + TURN_S


def runs(items: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    """Yield items in runs of some, where one alone takes less than it takes to look at the clock."""
    return (items[start : start + length] for start in range(0, len(items), length))


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items; after each others may have their turn."""
    turn = Turn()
    for item in items:
        yield item
        await turn.give()
