"""How much room there is for what is to be written: under the quota, and on the disk."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

__all__ = ["Room"]

LOW_WATERMARK = 0.9
"""Eviction goes on until this much of the quota is used, and as much more of the disk is free."""

STAT_S = 1.0
STAT_BYTES = 64 * 1024 * 1024
"""The file system is asked for its free space after so many seconds or bytes written."""


class Room:
    """Room under the quota and on the disk.

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
