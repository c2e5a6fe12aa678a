"""Waiting for a condition, with a bound; what tests do instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["until", "wait_until"]

LOOK_S = 0.01


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait on the event loop until a condition is true.

    Raises
    ------
    TimeoutError
    """
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition, of parts that have no event for it
            await asyncio.sleep(LOOK_S)


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait in this thread until a condition is true.

    Raises
    ------
    TimeoutError
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {timeout_s} s")
        time.sleep(LOOK_S)
