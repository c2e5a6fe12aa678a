"""What the cache holds of one version, and how it says so to others."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caterva2.cache.mirror import Mirror
from caterva2.model.path import DatasetPath

__all__ = ["CacheState", "CacheStats", "CachedVersion", "Version"]


@dataclass(frozen=True, slots=True)
class CacheState:
    """How much of the current version of a dataset is here.

    Attributes
    ----------
    etag : str
        The current version.
    cached_bytes : int
        Bytes of it that are here.
    complete : bool
        Whether that is all of it.
    last_used : float or None
        Seconds since the epoch; None if it never was.
    """

    etag: str
    cached_bytes: int
    complete: bool
    last_used: float | None


@dataclass(frozen=True, slots=True)
class CachedVersion:
    """A version that is here, current or not.

    Attributes
    ----------
    path : DatasetPath
    etag : str
    size, cached_bytes : int
        Of the file, and of what is here of it, in bytes.
    complete : bool
        Whether that is all of it.
    last_used : float
        Seconds since the epoch.
    current : bool
        Whether it is the version that is published now, as far as is known.
    """

    path: DatasetPath
    etag: str
    size: int
    cached_bytes: int
    complete: bool
    last_used: float
    current: bool


@dataclass(slots=True)
class CacheStats:
    """What happened in a cache since it was opened.

    Attributes
    ----------
    hits, misses : int
        Extents that were here when asked for, and that were not.
    verified : int
        Extents that were checked on their first use after a start.
    rejected : int
        Those of them that were wrong; they were fetched again.
    damaged : int
        Heads and pages of manifests that were found damaged on disk; they were fetched again.
    evicted, evicted_bytes : int
        Extents removed to stay under the quota, and their bytes.
    passed_through : int
        Extents that were served without being kept, because there was no room or the disk failed.
    disk_errors : int
        Reads and writes of the disk that failed.
    taken_over, taken_over_bytes : int
        Extents of new versions that were copied from earlier ones that are here, and their bytes.
    versions, cached_bytes : int
        What is here now.
    degraded : bool
        The disk failed when it was last tried.
    """

    hits: int = 0
    misses: int = 0
    verified: int = 0
    rejected: int = 0
    damaged: int = 0
    evicted: int = 0
    evicted_bytes: int = 0
    passed_through: int = 0
    disk_errors: int = 0
    taken_over: int = 0
    taken_over_bytes: int = 0
    versions: int = 0
    cached_bytes: int = 0
    degraded: bool = False


@dataclass(slots=True, eq=False)
class Version:
    """What is here of a version. Belongs to the event loop; changed by the store only.

    Attributes
    ----------
    id : int
        In the index; 0 if it could not be entered there: then nothing of it is kept.
    path : DatasetPath
    etag : str
    generation, size : int
    mirror : Mirror or None
    cached_bytes : int
    complete : bool
    last_used : float
        Seconds since the epoch.
    dirty : bool
        The index knows that it is being changed.
    users, entered : int
        Readers inside, and those that ever were; its files stay while there are any inside.
    held : int
        Those of them that need all that is here to stay: nothing of it is evicted.
    ticks : ndarray of uint32 or None
        When each extent was last used, by `caterva2.cache.eviction.Clock`; None if none was since the start.
    oldest_tick : int
        Nothing that is here was last used before it, as far as is known; 0 before the start.
    superseded : bool
        There is a later one: it is here to take from, and for those who read it still.
    doomed : bool
        It is removed once the last reader leaves.
    """

    id: int
    path: DatasetPath
    etag: str
    generation: int
    size: int
    mirror: Mirror | None
    cached_bytes: int = 0
    complete: bool = False
    last_used: float = 0.0
    dirty: bool = False
    users: int = 0
    entered: int = 0
    held: int = 0
    ticks: npt.NDArray[np.uint32] | None = None
    oldest_tick: int = 0
    superseded: bool = False
    doomed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Its name."""
        return str(self.path), self.etag

    @property
    def entry(self) -> Hashable:
        """What tells it from an earlier or later copy of the same version here."""
        return self.id or self.key
