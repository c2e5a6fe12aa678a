"""How far a host is, and how much it sends in a second, as seen in what it sends anyway.

Nothing is sent to find out: round trips are the times from a request to the head of its answer, rates are
taken while bodies arrive. Both are middles or minima of the last few, so that neither one answer that took
long to make, nor one that was waiting in a buffer, says how the link is.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Link"]

ROUND_TRIPS = 16
"""The least of so many is how far a host is."""

RATES = 9
"""The middle of so many is how much it sends."""

WINDOW_BYTES = 64 * 1024
WINDOW_S = 0.004
"""A rate is taken of at least so much, in so long."""

LONG_BYTES = 1024 * 1024
"""After so much the next one is begun, in bytes."""

NEAR_S = 0.002
NEAR_BYTES_PER_S = 500e6
FAR_BYTES_PER_S = 12.5e6
"""What is taken for the rate while none is known: of a host that is nearer than that, and of any other."""


class Link:
    """What is known of the way to a host. Belongs to one event loop.

    Parameters
    ----------
    clock : callable
        Returns the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._rates: deque[float] = deque(maxlen=RATES)
        self._bodies = 0
        self._began: float | None = None
        self._last = 0.0
        self._nbytes = 0

    @property
    def round_trip_s(self) -> float | None:
        """How far it is, in seconds; None before the first answer."""
        return min(self._round_trips, default=None)

    @property
    def bytes_per_s(self) -> float:
        """How much it sends; while that was not measured, what is usual at this distance."""
        if self._rates:
            return statistics.median(self._rates)
        near = self._round_trips and min(self._round_trips) < NEAR_S
        return NEAR_BYTES_PER_S if near else FAR_BYTES_PER_S

    def answered(self, round_trip_s: float) -> None:
        """Note how long it took until an answer began."""
        self._round_trips.append(round_trip_s)

    @contextmanager
    def body(self) -> Iterator[None]:
        """While inside, a body is arriving; several at a time are one transfer."""
        self._bodies += 1
        try:
            yield
        finally:
            self._bodies -= 1
            if not self._bodies:
                self._end()

    def received(self, nbytes: int) -> None:
        """Note a piece of a body."""
        self._last = self._clock()
        if self._began is None:  # when this one was sent is not known
            self._began, self._nbytes = self._last, 0
            return
        self._nbytes += nbytes
        if self._nbytes >= LONG_BYTES:
            self._end()

    def _end(self) -> None:
        if self._began is not None:
            seconds = self._last - self._began
            if self._nbytes >= WINDOW_BYTES and seconds >= WINDOW_S:
                self._rates.append(self._nbytes / seconds)
        self._began = None
