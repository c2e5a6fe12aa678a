"""Roots out of the cache of a subscriber that was stopped: complete versions, under the names that they have.

Each is checked against the digests of its origin before it is announced, so that what is published is, byte
for byte, what the origin published. Etag, generation and manifest stay: whoever has it fetches nothing again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass

import structlog

from caterva2.cache.finished import FinishedCache
from caterva2.cache.index import Row
from caterva2.errors import Corrupt, NotFound, Unavailable
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.publisher.checks import MirrorCheck
from caterva2.publisher.store import PublisherStore
from caterva2.publisher.versions import entry_of
from caterva2.source.original import LocalVersion

__all__ = ["MirrorCounts", "MirrorRoot"]

CHECKS = 2
"""How many datasets are checked at once."""

REPORT_S = 5.0
"""How often it is logged how far that is, in seconds."""

BEAT_S = 2.0
"""How often it is looked whether the directory is still there, in seconds."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class MirrorCounts:
    """What became of the datasets of a root.

    Attributes
    ----------
    unchecked, published : int
    unfinished : int
        Not all of them is here.
    wrong : int
        Some of their bytes, or of their manifests, are not what they were.
    """

    unchecked: int = 0
    published: int = 0
    unfinished: int = 0
    wrong: int = 0


class MirrorRoot:
    """Publishes one root out of a cache: its watcher, and its `caterva2.source.local.Originals`.

    It belongs to one event loop.

    Parameters
    ----------
    root : str
    cache : FinishedCache
        Opened; has the root.
    rows : mapping of str to Row
        The last versions that it has of the datasets, by name.
    catalogue : Catalogue
        Has the root already.
    store : PublisherStore
        Keeps what was checked: what has not changed since is not hashed again at the next start.
    executor : Executor
        Where bytes are hashed.

    Attributes
    ----------
    online, offline : asyncio.Event
        Whether the files are there.
    """

    def __init__(
        self,
        root: str,
        cache: FinishedCache,
        rows: Mapping[str, Row],
        *,
        catalogue: Catalogue,
        store: PublisherStore,
        executor: Executor,
    ) -> None:
        self.root = root
        self.online = asyncio.Event()
        self.offline = asyncio.Event()
        self._cache = cache
        self._rows = rows
        self._catalogue = catalogue
        self._check = MirrorCheck(root, cache, store, executor)
        self._unchecked = dict.fromkeys(sorted(rows, key=lambda name: rows[name].size))  # small ones first
        self._checking: set[str] = set()
        self._published: dict[str, LocalVersion] = {}
        self._unfinished: set[str] = set()
        self._wrong: set[str] = set()
        self._wake = asyncio.Event()
        self._suspected = asyncio.Event()
        self._same_place = _identity(cache)

    # -- as a watcher of a directory -------------------------------------------------------------

    @property
    def scanned(self) -> bool:
        """Whether all was checked."""
        return not self._unchecked and not self._checking

    @property
    def counts(self) -> MirrorCounts:
        """What became of its datasets so far."""
        return MirrorCounts(
            len(self._unchecked) + len(self._checking),
            len(self._published),
            len(self._unfinished),
            len(self._wrong),
        )

    def is_coming(self, name: str) -> bool:
        """Return whether a dataset may yet be published."""
        return name in self._unchecked or name in self._checking

    def look(self, name: str) -> None:
        """Check a dataset again: its file was seen to have changed."""
        if name in self._published:
            self._unchecked[name] = None
            self._wake.set()

    async def run(self) -> None:
        """Check all, publish what is right, and look after it; until cancelled."""
        await self._look_after()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            while True:
                if self._unchecked:
                    await self._check_all()
                self._wake.clear()
                await self._wake.wait()

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._suspected.wait()
            self._suspected.clear()
            await self._look_after()

    async def _look_after(self) -> None:
        # in a thread: a disk of another host that hangs must not stop everything
        there = await asyncio.get_running_loop().run_in_executor(None, _identity, self._cache)
        if there is not None and there == self._same_place:
            self.online.set()
            self.offline.clear()
            self._catalogue.set_state(self.root, "online")
            self._catalogue.confirm(self.root)
        elif not self.offline.is_set():
            log.warning("root offline", root=self.root, directory=str(self._cache.mirrors))
            self.offline.set()
            self.online.clear()
            self._catalogue.set_state(self.root, "offline")
            self._catalogue.doubt(self.root)

    # -- checking --------------------------------------------------------------------------------

    async def _check_all(self) -> None:
        log.info("checking the mirror", root=self.root, datasets=len(self._unchecked))
        reported_at = time.monotonic()

        async def work() -> None:
            nonlocal reported_at
            while self._unchecked:
                name = next(iter(self._unchecked))
                del self._unchecked[name]
                self._checking.add(name)
                try:
                    await self._conclude(name)
                finally:
                    self._checking.discard(name)
                if time.monotonic() > reported_at + REPORT_S:
                    reported_at = time.monotonic()
                    log.info("checking the mirror", root=self.root, **asdict(self.counts))

        async with asyncio.TaskGroup() as group:
            for _ in range(CHECKS):
                group.create_task(work())
        log.info("mirror checked", root=self.root, **asdict(self.counts))
        if self._unfinished:
            some = sorted(self._unfinished)[:3]
            log.warning("not published: not all of it is here", root=self.root, some=some)

    async def _conclude(self, name: str) -> None:
        """Check a dataset, and publish it or not."""
        row = self._rows[name]
        for names in (self._unfinished, self._wrong):
            names.discard(name)
        try:
            checked = await self._check.of(row)
        except (Corrupt, OSError, sqlite3.Error) as error:
            log.warning("not published: it is not what it was", dataset=str(row.path), reason=str(error))
            self._withdraw(name, self._wrong)
            return
        if checked is None:
            self._withdraw(name, self._unfinished)
            return
        head, self._published[name] = checked
        self._catalogue.apply(self.root, name, entry_of(head))

    def _withdraw(self, name: str, names: set[str]) -> None:
        names.add(name)
        if self._published.pop(name, None) is not None:
            self._catalogue.apply(self.root, name, None)

    # -- as `Originals` --------------------------------------------------------------------------

    def version(self, path: DatasetPath) -> LocalVersion:
        """Return the version of a dataset; see `Originals.version`."""
        try:
            return self._published[path.name]
        except KeyError:
            raise NotFound(str(path), f"there is no dataset {path.name!r} in root {path.root!r}") from None

    def check(self, path: DatasetPath) -> None:
        """Raise `Unavailable` if the files are not there; see `Originals.check`."""
        if self.offline.is_set():
            raise Unavailable(f"the cache with root {path.root!r} is not there now", retry_after_s=5.0)

    def suspect(self, path: DatasetPath) -> None:
        """Check a dataset again; see `Originals.suspect`."""
        self._suspected.set()
        self.look(path.name)

    def load_head(self, path: DatasetPath, etag: str) -> bytes | None:
        """Return an encoded head; see `Originals.load_head`."""
        row = self._rows[path.name]
        return self._cache.head(row.id) if row.etag == etag else None

    def load_page(self, path: DatasetPath, etag: str, number: int) -> bytes | None:
        """Return an encoded page; see `Originals.load_page`."""
        row = self._rows[path.name]
        return self._cache.page(row.id, number) if row.etag == etag else None

    def save_head(self, path: DatasetPath, etag: str, data: bytes) -> None:
        """Do nothing: nothing is written here. See `Originals.save_head`."""

    def save_page(self, path: DatasetPath, etag: str, number: int, data: bytes) -> None:
        """Do nothing: nothing is written here. See `Originals.save_page`."""


def _identity(cache: FinishedCache) -> tuple[int, int] | None:
    """Return what tells the directory of the files from another in its place; None if there is none."""
    try:
        status = cache.mirrors.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
