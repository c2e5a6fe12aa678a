"""What is published: roots, datasets at their versions, and the events of their changes.

A `Catalogue` is a plain value in memory. The publisher fills it from its directory, a subscriber and the
broker from the bus; HTTP routes, event streams and freshness read it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

from caterva2.errors import NotFound
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry, Root, RootState

__all__ = ["Catalogue", "Event", "EventKind"]

EventKind = Literal["created", "changed", "deleted", "online", "offline", "reset"]

EVENTS_KEPT = 10_000
"""How many events can be resumed from."""


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
