"""What an operator's ``--reset`` does: all versions get new names, and readers are told to take them so.

It is for a publisher whose state was set back to an earlier time together with the broker's: what it
announces then is older than what readers have seen, so they ignore it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog

from caterva2.bus.records import Claim
from caterva2.errors import Corrupt
from caterva2.model.catalogue import Catalogue
from caterva2.model.manifest import Head
from caterva2.publisher.store import PublisherStore, Record
from caterva2.publisher.versions import Taken, named_anew

__all__ = ["Resets", "name_all_anew"]

log = structlog.get_logger(__name__)


class Resets:
    """When the roots of a publisher were reset.

    Parameters
    ----------
    store : PublisherStore
    catalogue : Catalogue
        The publisher's own; it has the roots.
    asked : iterable of str
        Roots to be reset when they are claimed.
    """

    def __init__(self, store: PublisherStore, catalogue: Catalogue, asked: Iterable[str]) -> None:
        self._store = store
        self._catalogue = catalogue
        self._asked = set(asked)

    def at(self, root: str, there: Claim | None) -> int:
        """Return which reset to claim a root with: the `caterva2.bus.claims.ResetOf` of a publisher.

        It is later than all that are known, also if the clock is behind: an earlier one is ignored by who
        knows a later one, so that a bus set back to an earlier time resets nothing.
        """
        known = max(self._store.reset_at(root), 0 if there is None else there.reset)
        reset_at = known
        if root in self._asked:
            reset_at = max(time.time_ns() // 1_000_000, known + 1)
            log.warning("root reset", root=root, reset_at=reset_at)
        if reset_at != self._catalogue.root(root).reset_at:
            self._store.set_reset_at(root, reset_at)
            self._catalogue.reset(root, reset_at)
        self._asked.discard(root)
        return reset_at


def name_all_anew(store: PublisherStore, root: str) -> None:
    """Give all versions of a root new names and generations. It blocks.

    Nothing is read but what the store has. A version whose head is damaged is forgotten, to be taken again.
    """
    now_ms = time.time_ns() // 1_000_000
    named: list[tuple[str, Record, bytes | None]] = []
    lost = []
    for name, record in store.records(root).items():
        taken = _named_anew(store, root, name, record, now_ms)
        if taken is None:
            lost.append(name)
        else:
            named.append((name, taken.record, taken.head))
    store.save(root, named)
    store.delete(root, lost)


def _named_anew(store: PublisherStore, root: str, name: str, record: Record, now_ms: int) -> Taken | None:
    data = store.head(root, name, record.entry.etag)
    if data is None:
        return None
    try:
        head = Head.decode(data)
    except Corrupt:
        return None
    return named_anew(record, head, store.next_generation(root, name, now_ms), store.origin)
