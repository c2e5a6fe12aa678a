"""Names for the completion of keys: ``client["fo<TAB>``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from caterva2.errors import Caterva2Error

__all__ = ["MOST_NAMES", "QUICK_S", "Completion", "with_directories"]

MOST_NAMES = 1000
"""Names that are offered."""

QUICK_S = 1.0
"""How long somebody who has pressed a key waits for them, in seconds."""

KEPT_S = 10.0
"""How long they are kept, in seconds: several keys are pressed in a row."""


class Completion:
    """Names that are asked for when a key is pressed, and kept for a moment.

    Parameters
    ----------
    ask : callable
        Returns them. Where it fails there are none: this is no place for an error.
    """

    def __init__(self, ask: Callable[[], list[str]]) -> None:
        self._ask = ask
        self._names: list[str] = []
        self._until = float("-inf")

    def names(self) -> list[str]:
        """Return the names."""
        if time.monotonic() >= self._until:
            try:
                self._names = self._ask()
            except Caterva2Error:
                self._names = []
            self._until = time.monotonic() + KEPT_S
        return self._names


def with_directories(names: Iterable[str]) -> list[str]:
    """Return names, and the directories that they are in, sorted."""
    found: set[str] = set()
    for name in names:
        found.add(name)
        while name := name.rpartition("/")[0]:
            found.add(name)
    return sorted(found)
