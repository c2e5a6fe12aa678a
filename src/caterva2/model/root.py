"""What is known of a root: its datasets at their versions, who publishes it, how fresh that is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from blake3 import blake3

from caterva2.model.path import Kind

__all__ = ["DELETED_KEPT", "Entry", "Freshness", "Root", "RootState"]

RootState = Literal["online", "offline", "unknown"]
"""``unknown``: this observer is cut off itself and cannot tell."""

DELETED_KEPT = 100_000
"""Of how many deleted datasets of a root it is remembered which generation was seen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A dataset at a version, as announced.

    Attributes
    ----------
    etag : str
        Strong name of the version, without quotes.
    generation : int
        Order of the versions of this dataset: only ever grows.
    size : int
        Size of the file, in bytes.
    kind : Kind
    shape : tuple of int or None
        Elements by dimension; None if it is not an array.
    dtype : str or None
        As `numpy.dtype` spells it; None if it is not an array.
    mtime : float
        Time of last modification, in seconds since the epoch.
    error : str or None
        Why the file cannot be read as its kind; its bytes are still served.
    """

    etag: str
    generation: int
    size: int
    kind: Kind
    mtime: float
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Freshness:
    """Whether what is known of a root is confirmed to be current.

    Attributes
    ----------
    fresh : bool
        True while this process is in sync with the owner.
    age_s : float
        Seconds since it was last confirmed; 0 while fresh, infinite if it never was.
    """

    fresh: bool
    age_s: float

    @property
    def word(self) -> Literal["fresh", "unverified"]:
        """How it is spelled on the wire."""
        return "fresh" if self.fresh else "unverified"

    def to_json(self) -> dict[str, Any]:
        """Return the members that say it; an age is null if it never was confirmed."""
        return {"freshness": self.word, "age_s": self.age_s if math.isfinite(self.age_s) else None}


@dataclass(slots=True)
class Root:
    """A root and its datasets. One in a `Catalogue` is changed by that only.

    Attributes
    ----------
    instance : str
        Who announces it here.
    origin : str
        Instance of the publisher that it is from, where a tier announces it here; else empty.
    via : tuple of str
        Instances of the tiers that it came through, nearest the origin first.
    deleted : dict of str to int
        The generations that deleted datasets had.
    behind : dict of str to Entry
        What the owner announces where a later generation was seen here: it is ignored until a reset.
    reset_at : int
        When the owner last declared that generations begin anew, in milliseconds since the epoch by its
        clock; 0 if it never did.
    """

    name: str
    url: str = ""
    title: str = ""
    instance: str = ""
    origin: str = ""
    via: tuple[str, ...] = ()
    state: RootState = "unknown"
    fresh: bool = False
    confirmed_at: float | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    behind: dict[str, Entry] = field(default_factory=dict)
    reset_at: int = 0
    nbytes: int = 0
    _digest: int = 0
    _names: list[str] | None = None
    _moved: set[str] = field(default_factory=set)  # came or went since `_names` was sorted

    @property
    def names(self) -> list[str]:
        """The names of the datasets, sorted; not to be changed, and another list when there are others.

        Those that come are sorted among the others, which takes a tenth of sorting all.
        """
        if self._names is None:
            self._names = sorted(self.entries)
        elif self._moved:
            moved, self._moved = self._moved, set()
            kept = [name for name in self._names if name not in moved]
            self._names = sorted([*kept, *(name for name in moved if name in self.entries)])
        return self._names

    @property
    def digest(self) -> str:
        """Digest of the whole root, the same whatever the order in which it was filled."""
        return f"{self._digest:032x}"

    @property
    def freshness(self) -> Freshness:
        """Whether `entries` are confirmed to be current."""
        if self.fresh:
            return Freshness(True, 0.0)
        age = float("inf") if self.confirmed_at is None else max(0.0, time.time() - self.confirmed_at)
        return Freshness(False, age)

    def is_older(self, name: str, entry: Entry) -> bool:
        """Return whether a later generation of a dataset was seen than that of an entry."""
        known = self.entries.get(name)
        return entry.generation < (self.deleted.get(name, 0) if known is None else known.generation)

    def put(self, name: str, entry: Entry | None) -> None:
        """Set (or with None delete) a dataset, whatever its generation."""
        old = self.entries.pop(name, None)
        if self._names is not None and (old is None) != (entry is None):
            self._moved.add(name)
        if old is not None:
            self.nbytes -= old.size
            self._digest ^= _row_digest(name, old)
        if entry is not None:
            self.entries[name] = entry
            self.nbytes += entry.size
            self._digest ^= _row_digest(name, entry)
            if self.deleted:
                self.deleted.pop(name, None)
        elif old is not None:
            self.deleted[name] = old.generation
            if len(self.deleted) > DELETED_KEPT:
                del self.deleted[next(iter(self.deleted))]


def _row_digest(name: str, entry: Entry) -> int:
    row = f"{name}\0{entry.etag}\0{entry.generation}".encode()
    return int.from_bytes(blake3(row).digest(16), "big")
