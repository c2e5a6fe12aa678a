"""Following datasets: their metadata is here before anybody asks, and stays current."""

from __future__ import annotations

import asyncio

import structlog

from caterva2.errors import Caterva2Error, NotFound
from caterva2.model.catalogue import Catalogue, Entry, Event
from caterva2.model.path import DatasetPath, parse_path
from caterva2.model.pattern import check_pattern, matches
from caterva2.source.protocol import Source
from caterva2.subscriber.naming import matching, named
from caterva2.subscriber.store import SubscriberStore

__all__ = ["Follower"]

log = structlog.get_logger(__name__)


class Follower:
    """Keeps the heads of followed datasets in the cache, at their current version.

    Parameters
    ----------
    catalogue : Catalogue
    store : SubscriberStore
        Where the patterns are kept.
    source : Source
        The cache; reading a head through it keeps the head.
    """

    def __init__(self, catalogue: Catalogue, store: SubscriberStore, source: Source) -> None:
        self._catalogue = catalogue
        self._store = store
        self._source = source
        self._patterns = store.follows()
        self._wanted: dict[DatasetPath, None] = {}  # ordered: first changed, first fetched
        self._work = asyncio.Event()
        self._stop_listening = catalogue.listen(self._on_event)

    @property
    def patterns(self) -> list[str]:
        """The patterns that are followed."""
        return list(self._patterns)

    def follow(self, pattern: str) -> int:
        """Follow what a pattern names, now and later; returns how many datasets that is now.

        Raises
        ------
        InvalidPath
            If it is no pattern.
        NotFound
            If its root does not exist (a root given by wildcards may come later).
        """
        pattern = check_pattern(pattern)
        found = named(self._catalogue, pattern)
        self._store.follow(pattern)
        self._patterns = self._store.follows()
        self._want(found)
        return len(found)

    def unfollow(self, pattern: str) -> int:
        """Stop following a pattern; returns how many datasets it names now.

        Raises
        ------
        InvalidPath
            If it is no pattern.
        NotFound
            If it was not followed.
        """
        pattern = check_pattern(pattern)
        if not self._store.unfollow(pattern):
            followed = ", ".join(self._patterns) or "nothing"
            raise NotFound(pattern, f"{pattern!r} is not followed (followed: {followed})")
        self._patterns = self._store.follows()
        return len(self._matching([pattern]))

    def followed(self) -> list[DatasetPath]:
        """Return the datasets that are followed, sorted."""
        return self._matching(self._patterns)

    def follows(self, path: DatasetPath) -> bool:
        """Return whether a dataset is followed, or would be if it existed."""
        return any(matches(pattern, str(path)) for pattern in self._patterns)

    def _matching(self, patterns: list[str]) -> list[DatasetPath]:
        return matching(self._catalogue, patterns)

    def _want(self, paths: list[DatasetPath]) -> None:
        self._wanted.update(dict.fromkeys(paths))
        self._work.set()

    def _on_event(self, event: Event, entry: Entry | None) -> None:
        if event.kind == "online":
            self._want([path for path in self.followed() if path.root == event.path])
        elif entry is not None and any(matches(pattern, event.path) for pattern in self._patterns):
            self._want([parse_path(event.path)])

    async def run(self) -> None:
        """Fetch what is wanted, for ever. What cannot be had now is wanted again when its root is online."""
        self._want(self.followed())
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while self._wanted:
                    path = next(iter(self._wanted))
                    del self._wanted[path]
                    try:
                        await self._source.head(path)
                    except Caterva2Error as error:
                        log.debug("not followed now", dataset=str(path), reason=str(error))
        finally:
            self._stop_listening()
