"""Pins: datasets whose cached bytes are never evicted."""

from __future__ import annotations

from caterva2.errors import NotFound
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.model.pattern import check_pattern, matches
from caterva2.subscriber.naming import matching, named
from caterva2.subscriber.store import SubscriberStore

__all__ = ["Pins"]


class Pins:
    """The patterns that are pinned.

    Parameters
    ----------
    catalogue : Catalogue
    store : SubscriberStore
        Where the patterns are kept.
    """

    def __init__(self, catalogue: Catalogue, store: SubscriberStore) -> None:
        self._catalogue = catalogue
        self._store = store
        self._patterns = store.pins()

    @property
    def patterns(self) -> list[str]:
        """The patterns that are pinned."""
        return list(self._patterns)

    def __contains__(self, path: DatasetPath) -> bool:
        """Whether a dataset is pinned, published or not."""
        return any(matches(pattern, str(path)) for pattern in self._patterns)

    def pin(self, pattern: str) -> int:
        """Pin what a pattern names, now and later; returns how many datasets that is now.

        Raises
        ------
        InvalidPath
            If it is no pattern.
        NotFound
            If it names nothing; see `caterva2.subscriber.naming.named`.
        """
        pattern = check_pattern(pattern)
        found = named(self._catalogue, pattern)
        self._store.pin(pattern)
        self._patterns = self._store.pins()
        return len(found)

    def unpin(self, pattern: str) -> int:
        """Pin a pattern no more; returns how many datasets it names now.

        Raises
        ------
        InvalidPath
            If it is no pattern.
        NotFound
            If it was not pinned.
        """
        pattern = check_pattern(pattern)
        if not self._store.unpin(pattern):
            pinned = ", ".join(self._patterns) or "nothing"
            raise NotFound(pattern, f"{pattern!r} is not pinned (pinned: {pinned})")
        self._patterns = self._store.pins()
        return len(matching(self._catalogue, [pattern]))
