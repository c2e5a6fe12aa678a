"""How busy a service is, for others that may ask it or somebody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import cpu_count

__all__ = ["Load"]


class Load:
    """Requests under way, for each core, on the average of some time."""

    def __init__(self) -> None:
        self._under_way = 0
        self._busy_s = 0.0  # seconds of all requests, up to `_at`
        self._at = self._since = time.monotonic()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a request while inside."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def average(self) -> float:
        """Return the average since this was last called."""
        self._change(0)
        passed_s = self._at - self._since
        busy_s, self._busy_s, self._since = self._busy_s, 0.0, self._at
        under_way = busy_s / passed_s if passed_s > 0 else self._under_way
        return under_way / (cpu_count() or 1)

    def _change(self, by: int) -> None:
        now = time.monotonic()
        self._busy_s += self._under_way * (now - self._at)
        self._at = now
        self._under_way += by
