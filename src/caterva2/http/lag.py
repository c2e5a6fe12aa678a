"""How late the event loop is: how long whoever has something to say or to hear waits for its turn.

A timer asks for a turn and looks how late it got it. While there is something to do it does so often, so that
it misses nothing much longer than `BUSY_S`; else seldom, as each time wakes an idle process: with one pause
that would take 1.5 % of a core, with the other it takes 0.06 %.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self

__all__ = ["LoopLag"]

BUSY_S = 0.01
"""Pause between two looks while there is something to do, in seconds."""

IDLE_S = 0.25
"""The same while there is nothing."""

LATE_S = 0.002
"""After a turn that was later than this it looks often as well: something is being done, in seconds."""

WINDOW_S = 30.0
"""The longest lag is that of this time and of as much before it, in seconds."""

Note = Callable[[float], None]


class LoopLag:
    """Measures the lag of the running event loop; a context manager.

    Parameters
    ----------
    note : callable
        Called with each lag, in seconds.
    is_busy : callable
        Whether there is something to do that should not wait.
    """

    def __init__(self, note: Note, is_busy: Callable[[], bool]) -> None:
        self._note = note
        self._is_busy = is_busy
        self._longest_s = self._longest_before_s = 0.0
        self._window_ends = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ask(often=self._is_busy())
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()

    @property
    def longest_s(self) -> float:
        """The longest lag of the last `WINDOW_S` to twice that, in seconds."""
        self._turn_window(time.monotonic())
        return max(self._longest_s, self._longest_before_s)

    def _ask(self, *, often: bool) -> None:
        pause_s = BUSY_S if often else IDLE_S
        self._timer = self._loop.call_later(pause_s, self._look, time.monotonic() + pause_s)

    def _look(self, due: float) -> None:
        now = time.monotonic()
        lag_s = max(0.0, now - due)
        self._turn_window(now)
        self._longest_s = max(self._longest_s, lag_s)
        self._note(lag_s)
        self._ask(often=lag_s > LATE_S or self._is_busy())

    def _turn_window(self, now: float) -> None:
        if now >= self._window_ends:
            is_next = now < self._window_ends + WINDOW_S
            self._longest_before_s = self._longest_s if is_next else 0.0
            self._longest_s, self._window_ends = 0.0, now + WINDOW_S
