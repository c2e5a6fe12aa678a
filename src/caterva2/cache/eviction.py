"""What has to go, and how much of it: the quota, the free disk, and which extents were used least recently.

When an extent was used is a tick of a clock that counts reads, in one array for each version that was read
since the start. It does not survive a restart: until it is read again, all of a version counts as used when
the version was used last, before all that was read since.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caterva2.cache.census import extent_spans, stored_manifest
from caterva2.cache.index import Index
from caterva2.cache.version import Version
from caterva2.model.extents import Extent

__all__ = ["FOLLOWED", "ORDINARY", "PINNED", "Choice", "Clock", "Room", "choose", "evict_extents"]

ORDINARY, FOLLOWED, PINNED = range(3)
"""Ranks of datasets: lower ones go first, pinned ones never."""

LOW_WATERMARK = 0.9
"""Eviction goes on until this much of the quota is used, and as much more of the disk is free."""

STAT_S = 1.0
STAT_BYTES = 64 * 1024 * 1024
"""The file system is asked for its free space after so many seconds or bytes written."""


class Room:
    """How much room there is: under the quota and on the disk.

    Parameters
    ----------
    directory : Path
    quota_bytes : int or None
        Most that all versions may take.
    min_free_bytes : int
        Least that stays free on the disk; 0 not to look.
    """

    def __init__(self, directory: Path, quota_bytes: int | None, min_free_bytes: int) -> None:
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._min_free_bytes = min_free_bytes
        self.reserved_bytes = 0
        self._free_bytes = 0
        self._asked_at = float("-inf")
        self._since_bytes = 0

    def never(self, nbytes: int) -> bool:
        """Return whether there will be no room for so much, whatever is evicted."""
        return self._quota_bytes is not None and nbytes > self._quota_bytes

    def excess(self, cached_bytes: int, nbytes: int) -> int:
        """Return how much must be evicted before `nbytes` may be written, in bytes; 0 if there is room."""
        excess = 0
        in_use = cached_bytes + self.reserved_bytes
        if self._quota_bytes is not None and in_use + nbytes > self._quota_bytes:
            target = max(int(self._quota_bytes * LOW_WATERMARK), nbytes)
            excess = in_use + nbytes - min(target, self._quota_bytes)
        lacking = self.lacking(nbytes)
        if lacking > 0:
            excess = max(excess, lacking + int(self._min_free_bytes * (1 - LOW_WATERMARK)))
        return excess

    def lacking(self, nbytes: int) -> int:
        """Return how much less than there must be would be free on the disk with `nbytes` more, in bytes."""
        if not self._min_free_bytes:
            return 0
        return max(0, self._min_free_bytes - (self._free() - self.reserved_bytes - nbytes))

    def written(self, nbytes: int) -> None:
        """Note that so much less of the disk is free."""
        self._free_bytes -= nbytes
        self._since_bytes += nbytes

    def freed(self) -> None:
        """Note that the file system has to be asked again."""
        self._asked_at = float("-inf")

    def _free(self) -> int:
        now = time.monotonic()
        if now - self._asked_at > STAT_S or self._since_bytes > STAT_BYTES:
            self._asked_at, self._since_bytes = now, 0
            self._free_bytes = self._min_free_bytes * 2  # where it does not say: as if there were enough
            with contextlib.suppress(OSError):
                self._free_bytes = shutil.disk_usage(self._directory).free
        return self._free_bytes


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
        if self._tick == np.iinfo(np.uint32).max:
            self._tick = 0
            return False
        self._tick += 1
        ticks = version.ticks
        if ticks is None:  # untouched pages of it take no memory
            ticks = version.ticks = np.zeros(version.mirror.nextents, np.uint32)
        for extent in extents:
            ticks[extent.number] = self._tick
        return True


@dataclass(frozen=True)
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


def choose(versions: Sequence[Version], nbytes: int) -> list[Choice]:
    """Choose the least recently used extents of some versions, of about `nbytes` in all.

    About, as the sizes of a version's extents are taken to be alike: nobody has to look them all up. A
    version whose presence map cannot be read is chosen as a whole.
    """
    choices: list[Choice] = []
    for version in sorted((v for v in versions if v.ticks is None), key=lambda version: version.last_used):
        if nbytes <= 0:
            return choices
        numbers = _present(version)
        count = min(len(numbers), int(nbytes / _mean_bytes(version, numbers)) + 1)
        choices.append(Choice(version, numbers[:count], count == len(numbers)))
        nbytes -= min(nbytes, version.cached_bytes)
    return choices + (
        _choose_by_ticks([v for v in versions if v.ticks is not None], nbytes) if nbytes else []
    )


def _choose_by_ticks(versions: list[Version], nbytes: int) -> list[Choice]:
    if not versions:
        return []
    versions = sorted(versions, key=lambda version: version.last_used)
    present = [_present(version) for version in versions]
    counts = [len(numbers) for numbers in present]
    ticks = np.concatenate(
        [v.ticks[numbers] for v, numbers in zip(versions, present, strict=True) if v.ticks is not None]
    )
    sizes = [_mean_bytes(version, numbers) for version, numbers in zip(versions, present, strict=True)]
    order = np.argsort(ticks, kind="stable")  # of one tick: by version, by number
    reached = np.cumsum(np.repeat(sizes, counts)[order])
    going = np.zeros(len(order), bool)
    going[order[: int(np.searchsorted(reached, nbytes)) + 1]] = True
    parts = np.split(going, np.cumsum(counts)[:-1])
    return [
        Choice(version, numbers[part], bool(part.all()))
        for version, numbers, part in zip(versions, present, parts, strict=True)
        if part.any() or not len(part)
    ]


def _present(version: Version) -> npt.NDArray[np.int64]:
    with contextlib.suppress(OSError):
        if version.mirror is not None:
            return version.mirror.numbers()
    return np.empty(0, np.int64)


def _mean_bytes(version: Version, numbers: npt.NDArray[np.int64]) -> float:
    return max(version.cached_bytes / max(len(numbers), 1), 1.0)


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
    offsets, sizes = extent_spans(head, pages, numbers)
    known = sizes > 0
    return version.mirror.evict(numbers[known], offsets[known], sizes[known])
