"""Following datasets: what is wanted of them is here before anybody asks, and stays current."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import get_args

import structlog

from caterva2.cache.cached import CachedSource
from caterva2.errors import Caterva2Error, Changed, ConfigError, InvalidPath, NotFound
from caterva2.model.catalogue import Catalogue, Event
from caterva2.model.path import DatasetPath, parse_path
from caterva2.model.pattern import FollowMode, check_pattern, matches
from caterva2.model.root import Entry
from caterva2.subscriber.naming import matching, named
from caterva2.subscriber.store import SubscriberStore

__all__ = ["Follower"]

_MODES: tuple[FollowMode, ...] = get_args(FollowMode)

HEADS = 4
"""How many heads are fetched at once."""

REFRESHES = 2
LARGE_BYTES = 64 * 1024 * 1024
"""How many datasets have their bytes refreshed at once: of those of this size, and of smaller ones."""

RETRY_S = 5.0
"""What could not be had of a root that is online is tried again after so many seconds."""

WORTH_SAYING_S = 5.0
"""Of all that takes longer the log says when it is done."""

log = structlog.get_logger(__name__)


class Follower:
    """Keeps followed datasets in the cache, at their current version.

    Parameters
    ----------
    catalogue : Catalogue
    store : SubscriberStore
        Where the patterns are kept.
    source : CachedSource
        Reading a head through it keeps the head.
    """

    def __init__(self, catalogue: Catalogue, store: SubscriberStore, source: CachedSource) -> None:
        self._catalogue = catalogue
        self._store = store
        self._source = source
        self._patterns = _load(store)
        self._behind: set[DatasetPath] = set()  # wanted in full, and not known to be here in full
        self._behind_since: float | None = None
        self._said_so = False
        self._at_work = 0
        self._heads = _Waiting()
        self._small = _Waiting()
        self._large = _Waiting()
        self._stop_listening = catalogue.listen(self._on_event)

    @property
    def patterns(self) -> dict[str, FollowMode]:
        """The patterns that are followed, and how."""
        return dict(self._patterns)

    @property
    def behind(self) -> int:
        """How many datasets that are wanted in full are not here in full, as far as was looked."""
        return len(self._behind)

    def begin(self, patterns: Iterable[str], mode: FollowMode) -> None:
        """Follow patterns, whether there is anything yet that they name; to be called before `run`.

        Raises
        ------
        ConfigError
            If one is no pattern.
        """
        try:
            for pattern in map(check_pattern, patterns):
                self._store.follow(pattern, mode)
        except InvalidPath as error:
            raise ConfigError(f"cannot follow: {error}") from error
        self._patterns = _load(self._store)

    def follow(self, pattern: str, mode: FollowMode = "cached") -> int:
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
        self._store.follow(pattern, mode)
        self._patterns = _load(self._store)
        self._heads.add(found)
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
        self._patterns = _load(self._store)
        self._behind = {path for path in self._behind if self.mode(path) == "full"}
        return len(matching(self._catalogue, [pattern]))

    def followed(self) -> list[DatasetPath]:
        """Return the datasets that are followed, sorted."""
        return matching(self._catalogue, list(self._patterns))

    def follows(self, path: DatasetPath) -> bool:
        """Return whether a dataset is followed, or would be if it existed."""
        return self.mode(path) is not None

    def mode(self, path: DatasetPath) -> FollowMode | None:
        """Return how a dataset is followed, or would be if it existed; None if it is not."""
        modes = [mode for pattern, mode in self._patterns.items() if matches(pattern, str(path))]
        return max(modes, key=_MODES.index, default=None)

    def _on_event(self, event: Event, entry: Entry | None) -> None:
        if event.kind == "online":
            self._heads.add(path for path in self.followed() if path.root == event.path)
        elif event.kind == "deleted":
            self._behind.discard(parse_path(event.path))
        elif entry is not None and any(matches(pattern, event.path) for pattern in self._patterns):
            self._heads.add([parse_path(event.path)])

    async def run(self) -> None:
        """Refresh what is wanted, for ever. No head waits for bytes, and no small dataset for a large one."""
        self._heads.add(self.followed())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(HEADS):
                    group.create_task(self._work(self._heads, self._fetch_head))
                for waiting in (self._small, self._large) * REFRESHES:
                    group.create_task(self._work(waiting, self._refresh))
        finally:
            self._stop_listening()

    async def _work(
        self, waiting: _Waiting, work: Callable[[DatasetPath, FollowMode], Awaitable[None]]
    ) -> None:
        while True:
            path = await waiting.next()
            mode = self.mode(path)
            if mode is None:
                continue
            self._at_work += 1
            try:
                await work(path, mode)
            except (NotFound, Changed) as error:  # we hear of what comes next
                if isinstance(error, NotFound):
                    self._behind.discard(path)
                log.debug("changed while it was refreshed", dataset=str(path), reason=str(error))
            except Caterva2Error as error:
                log.debug("cannot be refreshed now", dataset=str(path), reason=str(error))
                root = self._catalogue.roots.get(path.root)
                if root is not None and root.state != "offline":  # else wanted again once it is online
                    asyncio.get_running_loop().call_later(RETRY_S, self._heads.add, [path])
            finally:
                self._at_work -= 1
            self._note_mirrored()

    async def _fetch_head(self, path: DatasetPath, mode: FollowMode) -> None:
        if mode == "full":
            self._behind.add(path)
            self._behind_since = self._behind_since or time.monotonic()
        else:
            self._behind.discard(path)
        head = await self._source.head(path)
        if mode != "meta":
            waiting = self._small if head.size < LARGE_BYTES else self._large
            waiting.add([path])

    async def _refresh(self, path: DatasetPath, mode: FollowMode) -> None:
        if not await self._source.refresh(path, full=mode == "full"):
            log.warning("followed, but there is no room to keep it", dataset=str(path))
        elif self._source.state(path).complete or mode != "full":
            self._behind.discard(path)

    def _note_mirrored(self) -> None:
        """Say so, when all that is wanted in full has come to be here: of mere changes not to everybody."""
        busy = self._at_work or self._heads or self._small or self._large or self._behind
        if busy or self._behind_since is None:
            return
        took_s, self._behind_since = time.monotonic() - self._behind_since, None
        say = log.debug if self._said_so and took_s < WORTH_SAYING_S else log.info
        self._said_so = True
        say("all that is followed in full is here", took_s=round(took_s, 1))


class _Waiting:
    """Datasets that wait for something to be done with them, each once; first come, first served."""

    def __init__(self) -> None:
        self._paths: dict[DatasetPath, None] = {}
        self._there = asyncio.Event()

    def add(self, paths: Iterable[DatasetPath]) -> None:
        self._paths.update(dict.fromkeys(paths))
        if self._paths:
            self._there.set()

    def __len__(self) -> int:
        return len(self._paths)

    async def next(self) -> DatasetPath:
        while not self._paths:
            self._there.clear()
            await self._there.wait()
        path = next(iter(self._paths))
        del self._paths[path]
        return path


def _load(store: SubscriberStore) -> dict[str, FollowMode]:
    return {pattern: mode for pattern, mode in store.follows().items() if mode in _MODES}
