"""Which extents were used least recently, and go first.

When an extent was used is a tick of a clock that counts reads, in one array for each version that was read
since the start. It does not survive a restart: until it is read again, all of a version counts as used when
the version was used last, before all that was read since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from caterva2.cache.census import all_spans, stored_manifest
from caterva2.cache.index import Index
from caterva2.cache.version import Version
from caterva2.model.extents import Extent

__all__ = [
    "FOLLOWED",
    "ORDINARY",
    "PINNED",
    "Choice",
    "Clock",
    "Present",
    "Queue",
    "choose",
    "evict_extents",
    "look",
]

ORDINARY, FOLLOWED, PINNED = range(3)
"""Ranks of datasets: lower ones go first, pinned ones never."""


LAST_TICK = 2**32 - 1
"""Ticks are kept in 32 bits."""


class Clock:
    """Counts reads, and notes in each version which of its extents was read at which count."""

    def __init__(self) -> None:
        self._tick = 0

    def touch(self, version: Version, extents: Sequence[Extent]) -> bool:
        """Note that extents are used now; False, and nothing noted, once in four thousand million times.

        Then the caller has to forget the ticks of all versions.
        """
        if version.mirror is None:
            return True
        if self._tick == LAST_TICK:
            self._tick = 0
            return False
        self._tick += 1
        ticks = version.ticks
        if ticks is None:  # untouched pages of it take no memory
            ticks = version.ticks = np.zeros(version.mirror.nextents, np.uint32)
            version.oldest_tick = 0 if version.cached_bytes else self._tick
        for extent in extents:
            ticks[extent.number] = self._tick
        return True


@dataclass(frozen=True, slots=True)
class Choice:
    """Extents of a version that are to go.

    Attributes
    ----------
    version : Version
    numbers : ndarray of int64
        Ascending.
    whole : bool
        Whether that is all that is here of it.
    """

    version: Version
    numbers: npt.NDArray[np.int64]
    whole: bool


class Queue:
    """Versions by when any extent that is here of them may have been used last, longest ago first.

    That is known without a look at presence maps: a bound from when a map was last looked at. So who wants
    the extents that were used least recently looks into the versions that come first, not into all.

    Parameters
    ----------
    versions : iterable of Version
    by_extent : bool
        If not, they come by when they were used last as a whole.
    """

    def __init__(self, versions: Iterable[Version], *, by_extent: bool) -> None:
        self._entries = [(v.oldest_tick if by_extent else 0, v.last_used, v) for v in versions]
        self._entries.sort(key=itemgetter(0, 1))
        self._next = 0

    def restart(self) -> None:
        """Begin with the first again."""
        self._next = 0

    def pop(self, before: float) -> Version | None:
        """Return the next version, if it may have extents from before a tick."""
        if self._next == len(self._entries) or self._entries[self._next][0] >= before:
            return None
        self._next += 1
        return self._entries[self._next - 1][2]


@dataclass(frozen=True, slots=True)
class Present:
    """What is here of a version, and when it was used.

    Attributes
    ----------
    version : Version
    numbers : ndarray of int64, shape (n,)
        Extents, ascending; none if the presence map cannot be read.
    ticks : ndarray of uint32, shape (n,)
        When each was used; 0 for all before the start.
    extent_bytes : float
        The sizes of a version's extents are taken to be alike: nobody has to look them all up.
    """

    version: Version
    numbers: npt.NDArray[np.int64]
    ticks: npt.NDArray[np.uint32]
    extent_bytes: float


def look(versions: Iterable[Version]) -> list[Present]:
    """Look at presence maps."""
    return [_look(version) for version in versions]


def _look(version: Version) -> Present:
    numbers = np.empty(0, np.int64)
    with contextlib.suppress(OSError):
        if version.mirror is not None:
            numbers = version.mirror.numbers()
    extent_bytes = max(version.cached_bytes / max(len(numbers), 1), 1.0)
    if version.ticks is None:
        return Present(version, numbers, np.zeros(len(numbers), np.uint32), extent_bytes)
    ticks = version.ticks[numbers]
    if len(ticks):
        version.oldest_tick = int(ticks.min())
    return Present(version, numbers, ticks, extent_bytes)


def choose(present: Iterable[Present], nbytes: int) -> tuple[list[Choice], int]:
    """Choose the least recently used extents, of about `nbytes` in all.

    Of those that were used at one tick, or before the start, the ones of the version that was used least
    recently go first. A version of which nothing can be found is chosen as a whole.

    Returns
    -------
    choices : list of Choice
    tick : int
        When the last of them was used.
    """
    present = sorted(present, key=lambda some: some.version.last_used)
    if not present:
        return [], 0
    counts = [len(some.numbers) for some in present]
    ticks = np.concatenate([some.ticks for some in present])
    order = np.argsort(ticks, kind="stable")
    reached = np.cumsum(np.repeat([some.extent_bytes for some in present], counts)[order])
    chosen = order[: int(np.searchsorted(reached, nbytes)) + 1]
    going = np.zeros(len(order), bool)
    going[chosen] = True
    parts = np.split(going, np.cumsum(counts)[:-1])
    choices = [
        Choice(some.version, some.numbers[part], bool(part.all()))
        for some, part in zip(present, parts, strict=True)
        if part.any() or not len(part)
    ]
    return choices, int(ticks[chosen].max(initial=0))


def evict_extents(
    index: Index, version: Version, numbers: npt.NDArray[np.int64]
) -> tuple[int, int, OSError | None]:
    """Evict extents of a version, as far as its manifest says where they are.

    Returns
    -------
    count, nbytes, error
        As `Mirror.evict`.

    Raises
    ------
    sqlite3.Error
        If the index cannot be read.
    """
    head, pages = stored_manifest(index, version.id, numbers)
    if head is None or version.mirror is None:
        return 0, 0, None
    return version.mirror.evict(numbers, all_spans(head, pages))
