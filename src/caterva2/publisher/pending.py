"""Files that are not the version announced any more, and when to take them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from caterva2.publisher.scan import Found
from caterva2.publisher.versions import GRANULE_S, quiet_in_s

__all__ = ["Pending", "PendingFile"]

EARLY_S = 0.002
"""Timers end early by this much, in seconds: a file that is looked at too soon waits for `AGAIN_S`."""

AGAIN_S = 1.0
"""Pause between attempts to take a file that could not be taken, in seconds."""


@dataclass(slots=True)
class PendingFile:
    """A file that is to be taken.

    Attributes
    ----------
    found : Found
        As it was last seen.
    since : float
        When it was first seen to differ from what is announced.
    key_since : float
        When it was first seen with its present status.
    forced_at : float
        When it is taken even if it was not quiet.
    due : float
        When it is taken.
    failed : bool
        It could not be taken as it was last seen.

    All times are of the event loop's clock, in seconds.
    """

    found: Found
    since: float
    key_since: float
    forced_at: float
    due: float
    failed: bool = False


class Pending:
    """The files of a root that are to be taken, by the time at which they are.

    Parameters
    ----------
    settle_s : float
        A file is taken when it was not written for this long.
    max_settle_s : float
        A file that is always being written is taken after this long.
    """

    def __init__(self, settle_s: float, max_settle_s: float) -> None:
        self._settle_s = max(settle_s, GRANULE_S)
        self._max_settle_s = max_settle_s
        self._files: dict[str, PendingFile] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def see(self, name: str, found: Found, now: float) -> None:
        """Note a file that differs from what is announced."""
        file = self._files.get(name)
        if file is None:
            file = PendingFile(found, now, now, now + self._max_settle_s, now)
            self._files[name] = file
        elif file.found == found and not file.failed and file.due < float("inf"):
            return
        elif file.found != found:
            file.found, file.key_since, file.failed = found, now, False
        # By the file's times; by our own clock where the file's are of another that is ahead
        quiet_in = min(quiet_in_s(found.key, self._settle_s), file.key_since + self._settle_s - now)
        settles_at = now + quiet_in + EARLY_S if quiet_in > 0 else now
        file.due = min(settles_at, max(now, file.forced_at))
        if file.failed:
            file.due = max(file.due, now + AGAIN_S)
        heapq.heappush(self._heap, (file.due, name))

    def settled(self, name: str, now: float) -> bool:
        """Return whether a file was quiet for long enough."""
        file = self._files[name]
        by_own_clock = file.key_since + self._settle_s <= now
        return by_own_clock or quiet_in_s(file.found.key, self._settle_s) <= 0

    def failed(self, name: str, now: float) -> None:
        """Note that a file could not be taken; it waits until it is seen again."""
        file = self._files.get(name)
        if file is not None:
            file.forced_at = max(file.forced_at, now + AGAIN_S)
            file.due, file.failed = float("inf"), True

    def forget(self, names: Iterable[str]) -> None:
        """Note that files are as announced, or gone."""
        for name in names:
            self._files.pop(name, None)

    def next_due(self) -> float | None:
        """Return when the next file is to be taken; None if there is none."""
        while self._heap:
            due, name = self._heap[0]
            file = self._files.get(name)
            if file is not None and file.due == due:
                return due
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float, limit: int) -> list[tuple[str, Found]]:
        """Return files that are to be taken now, at most so many; they stay pending."""
        taken: list[tuple[str, Found]] = []
        while len(taken) < limit and (due := self.next_due()) is not None and due <= now:
            _, name = heapq.heappop(self._heap)
            file = self._files[name]
            file.due = float("inf")
            taken.append((name, file.found))
        return taken
