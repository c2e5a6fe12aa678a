"""How busy a service is, for others that may ask it or somebody else."""

from __future__ import annotations

import time
from os import cpu_count

__all__ = ["Load"]

MOST = 0.95
"""Busier than for this share of the time it cannot be told to be."""


class Load:
    """How many requests wait for this process, on the average, where one more finds it busy.

    It is ``u / (1 - u)``, as in a queue with one server that is busy for a share ``u`` of the time: the event
    loop, or all cores if what its threads do keeps these busier. A request that waits for another host is no
    load.
    """

    def __init__(self) -> None:
        self._last = _clocks()

    def average(self) -> float:
        """Return it for the time since this was last called; to be called on the event loop."""
        now, before = _clocks(), self._last
        self._last = now
        passed_s, loop_s, process_s = (new - old for new, old in zip(now, before, strict=True))
        if passed_s <= 0:
            return 0.0
        busy = min(max(loop_s, process_s / (cpu_count() or 1)) / passed_s, MOST)
        return busy / (1 - busy)


def _clocks() -> tuple[float, float, float]:
    """Return the time, and what this thread and the process worked, in seconds."""
    return time.monotonic(), time.thread_time(), time.process_time()
