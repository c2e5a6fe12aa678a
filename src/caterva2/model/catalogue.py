"""What is published: roots, datasets at their versions, and the events of their changes.

A `Catalogue` is a plain value in memory. The publisher fills it from its directory, a subscriber and the
broker from the bus; HTTP routes, event streams and freshness read it.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

from blake3 import blake3

from caterva2.errors import NotFound
from caterva2.model.path import DatasetPath, Kind

__all__ = ["DELETED_KEPT", "Catalogue", "Entry", "Event", "EventKind", "Freshness", "Root", "RootState"]

RootState = Literal["online", "offline", "unknown"]
"""``unknown``: this observer is cut off itself and cannot tell."""

EventKind = Literal["created", "changed", "deleted", "online", "offline", "reset"]

EVENTS_KEPT = 10_000
"""How many events can be resumed from."""

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


class Event(NamedTuple):
    """A difference that was seen.

    Attributes
    ----------
    id : str
        ``<log>-<number>``; what an SSE client sends back as ``Last-Event-ID``.
    kind : EventKind
    path : str
        ``root/dir/name``, or the root alone for ``online``, ``offline`` and ``reset``.
    time : float
        When it was seen here, in seconds since the epoch.
    """

    id: str
    kind: EventKind
    path: str
    time: float
    etag: str | None = None
    generation: int | None = None


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


Listener = Callable[[Event, Entry | None], None]


class Catalogue:
    """Roots and their datasets, with a log of the differences seen.

    Not thread-safe: it belongs to one event loop. Listeners are called at once, in the order in which they
    were added, with the event and the new entry (None for a deletion and for roots); they must not block.
    """

    def __init__(self) -> None:
        self._roots: dict[str, Root] = {}
        self._listeners: list[Listener] = []
        self._log: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._log_name = f"{time.time_ns():x}"
        self._last_number = 0

    # -- reading ---------------------------------------------------------------------------------

    @property
    def roots(self) -> dict[str, Root]:
        """The roots by name; not to be changed by the caller."""
        return self._roots

    def root(self, name: str) -> Root:
        """Return a root.

        Raises
        ------
        NotFound
        """
        try:
            return self._roots[name]
        except KeyError:
            raise NotFound(name, f"there is no root {name!r}") from None

    def entry(self, path: DatasetPath) -> Entry:
        """Return the current version of a dataset.

        Raises
        ------
        NotFound
        """
        try:
            return self.root(path.root).entries[path.name]
        except KeyError:
            raise NotFound(str(path), f"there is no dataset {path.name!r} in root {path.root!r}") from None

    def below(self, path: DatasetPath) -> Iterator[tuple[str, Entry]]:
        """Yield ``(name, entry)`` of the datasets at or below a path, sorted by name.

        Raises
        ------
        NotFound
            If there is no such root, or nothing at or below the path.
        """
        root = self.root(path.root)
        found = root.names
        if path.name:
            below = (
                bisect_left(found, f"{path.name}/"),
                bisect_left(found, f"{path.name}0"),
            )  # behind the slash
            found = [path.name] * (path.name in root.entries) + found[slice(*below)]
            if not found:
                raise NotFound(str(path), f"there is nothing at {path.name!r} in root {path.root!r}")
        for name in found:
            yield name, root.entries[name]

    # -- changing --------------------------------------------------------------------------------

    def set_root(
        self,
        name: str,
        *,
        url: str = "",
        title: str = "",
        instance: str = "",
        origin: str = "",
        via: tuple[str, ...] = (),
    ) -> Root:
        """Add a root, or change who serves it."""
        root = self._roots.setdefault(name, Root(name))
        root.url, root.title, root.instance = url, title, instance
        root.origin, root.via = origin, via
        return root

    def remove_root(self, name: str) -> None:
        """Forget a root and its datasets; each is an event."""
        root = self._roots.get(name)
        if root is None:
            return
        for dataset in list(root.entries):
            self.apply(name, dataset, None)
        self.set_state(name, "offline")
        del self._roots[name]

    def set_state(self, name: str, state: RootState) -> None:
        """Set a root's state; going ``online`` or ``offline`` is an event."""
        root = self.root(name)
        if root.state != state:
            root.state = state
            if state != "unknown":
                self._emit(state, name, None)

    def confirm(self, name: str) -> None:
        """Note that a root was seen to equal its owner's just now."""
        root = self.root(name)
        root.fresh, root.confirmed_at = True, time.time()

    def doubt(self, name: str, confirmed_at: float | None = None) -> None:
        """Note that a root cannot be confirmed any more.

        Parameters
        ----------
        name : str
        confirmed_at : float, optional
            When it was last confirmed, in seconds since the epoch, where that is known from elsewhere (a
            catalogue loaded from disk).
        """
        root = self.root(name)
        root.fresh = False
        if confirmed_at is not None:
            root.confirmed_at = confirmed_at

    def apply(self, root_name: str, name: str, entry: Entry | None) -> bool:
        """Set (or with None delete) a dataset; a difference is an event.

        An entry of an older generation than was ever seen of it is ignored, and kept as `Root.behind`: nobody
        goes backwards.

        Returns
        -------
        bool
            Whether anything changed.

        Raises
        ------
        NotFound
            If there is no such root.
        """
        root = self.root(root_name)
        if entry is not None and root.is_older(name, entry):
            root.behind[name] = entry
            return False
        if root.behind:
            root.behind.pop(name, None)
        if entry == root.entries.get(name):
            return False
        self._put(root, name, entry)
        return True

    def fill(self, root_name: str, entries: Iterable[tuple[str, Entry]]) -> None:
        """Set datasets that were known before, as they were: no events.

        Raises
        ------
        NotFound
            If there is no such root.
        """
        root = self.root(root_name)
        for name, entry in entries:
            root.put(name, entry)

    def _put(self, root: Root, name: str, entry: Entry | None) -> None:
        created = name not in root.entries
        root.put(name, entry)
        kind: EventKind = "deleted" if entry is None else "created" if created else "changed"
        self._emit(kind, f"{root.name}/{name}", entry)

    def look_again(self, name: str) -> None:
        """Forget what the owner of a root announces beside what is known: all is going to be told again."""
        self.root(name).behind.clear()

    def reset(self, name: str, reset_at: int) -> None:
        """Note that the owner of a root declared its catalogue to be right, older generations too.

        What it announces is what is known from now on. It is an event, unless nothing was known before.
        """
        root = self.root(name)
        root.reset_at = reset_at
        root.deleted.clear()
        if root.confirmed_at is not None:
            self._emit("reset", name, None)
        older, root.behind = root.behind, {}
        for dataset, entry in older.items():
            self._put(root, dataset, entry)

    # -- events ----------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` on each event from now on; returns what undoes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def events_after(self, last_id: str | None) -> list[Event] | None:
        """Return the events after an id.

        Returns
        -------
        list of Event or None
            Empty if `last_id` is None or the newest. None if the id is of another log or too old: events
            were missed, and the reader must look at the catalogue again.
        """
        if last_id is None:
            return []
        name, _, number = last_id.rpartition("-")
        if name != self._log_name or not number.isascii() or not number.isdigit():
            return None
        missed = self._last_number - int(number)
        if missed < 0 or missed > len(self._log):
            return None
        return list(islice(self._log, len(self._log) - missed, None))

    @property
    def last_event_id(self) -> str:
        """Id of the newest event; resuming from it yields what comes next."""
        return f"{self._log_name}-{self._last_number}"

    def _emit(self, kind: EventKind, path: str, entry: Entry | None) -> None:
        self._last_number += 1
        event = Event(
            f"{self._log_name}-{self._last_number}",
            kind,
            path,
            time.time(),
            entry.etag if entry else None,
            entry.generation if entry else None,
        )
        self._log.append(event)
        for listener in list(self._listeners):
            listener(event, entry)
