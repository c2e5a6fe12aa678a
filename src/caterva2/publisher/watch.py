"""Keeping the catalogue equal to a directory.

Events of the file system only say where to look; what is there is always found by looking, and everything is
looked at again from time to time. So a lost event costs time, never truth.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import structlog

from caterva2.model.catalogue import Catalogue
from caterva2.publisher.directory import Candidate, Difference, DirectoryLost, Outcome, RootDirectory
from caterva2.publisher.events import ChangeKind, FileEvents
from caterva2.publisher.pending import Pending
from caterva2.publisher.store import PublisherStore, Record
from caterva2.publisher.versions import Taken, Wait
from caterva2.turns import in_turns

__all__ = ["RootWatcher", "WatchStats"]

BATCH_FILES = 500
"""Most files that are taken, written to the store and announced together: with fewer, the thread that takes
them and the event loop wait for each other while many are announced."""

MAX_NAMES = 2000
"""More names than this to look at are looked at by looking at all."""

BEAT_S = 2.0
"""How often it is checked that the directory is the one that it was, in seconds."""

FAILED_PAUSE_S = 5.0
"""Pause after the state could not be written (a full disk), in seconds."""

RESCAN_PACE = 100
"""All is looked at again no sooner than after this many times what that took: at most 1 % of the time."""

NO_EVENTS_PACE = 10
"""Without events all is looked at again after this many times what that took."""

R = TypeVar("R")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class WatchStats:
    """Counters of watchers.

    Attributes
    ----------
    scans : int
        Of whole directories.
    looks : int
        Of some names.
    scan_seconds : float
        What both took.
    """

    scans: int = 0
    looks: int = 0
    scan_seconds: float = 0.0


class RootWatcher:
    """Keeps a root of a catalogue equal to its directory. It belongs to one event loop.

    Parameters
    ----------
    directory : RootDirectory
    catalogue : Catalogue
        Has the root already.
    store : PublisherStore
    executor : Executor
        Where the directory is looked at: one job at a time.
    settle_s, max_settle_s, rescan_s : float
        As in `caterva2.config.PublisherSettings`.

    Attributes
    ----------
    records : dict of str to Record
        The versions announced.
    files : dict of str to str
        Path of the file below the directory, for datasets whose name leads over a link.
    online : asyncio.Event
        The directory is there, and was compared at least once.
    scanned : bool
        All that was there at the start is announced, or was tried for `max_settle_s`, and at least once.
    """

    def __init__(
        self,
        directory: RootDirectory,
        catalogue: Catalogue,
        store: PublisherStore,
        executor: Executor,
        *,
        settle_s: float,
        max_settle_s: float,
        rescan_s: float,
        stats: WatchStats | None = None,
    ) -> None:
        self.root = directory.root
        self.directory = directory
        self.stats = stats or WatchStats()
        self.online = asyncio.Event()
        self.offline = asyncio.Event()
        self.scanned = False
        self.files: dict[str, str] = {}
        self._catalogue = catalogue
        self._store = store
        self._executor = executor
        self._rescan_s = rescan_s
        self._max_settle_s = max_settle_s
        self._pending = Pending(settle_s, max_settle_s)
        self._names: set[str] = set()
        self._watched: set[str] = set()
        self._wake = asyncio.Event()
        self._events = FileEvents(self._on_changes)
        self._loop = asyncio.get_running_loop()
        self._next_scan = self._loop.time()  # at once
        self._scan_s = 0.0
        self._retry_at = 0.0
        self._give_up_at = float("inf")
        self._untried: set[str] = set()  # of what was there at the start
        self._unclean = True
        self.records: dict[str, Record] = store.records(self.root)
        for name, record in self.records.items():
            catalogue.apply(self.root, name, record.entry)

    def look(self, name: str) -> None:
        """Look at a dataset soon."""
        self._names.add(name)
        self._wake.set()

    def raise_generation(self, name: str, generation: int) -> None:
        """Take a dataset again, as a version of a later generation than one that others know."""
        floors = self.directory.generation_floors
        floors[name] = max(generation, floors.get(name, 0))
        self.look(name)

    def is_coming(self, name: str) -> bool:
        """Return whether there is a file of a dataset that is to be taken."""
        return name in self._pending

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                try:
                    await self._turn()
                except sqlite3.Error as error:
                    log.warning("state not written", root=self.root, reason=str(error))
                    self._rescan()
                    await asyncio.sleep(FAILED_PAUSE_S)
                await self._wait()
        finally:
            await asyncio.to_thread(self._events.close)

    # -- what to look at -------------------------------------------------------------------------

    def _on_changes(self, changes: Iterable[tuple[int, str]]) -> None:
        for kind, path in changes:
            # A directory that went away, or came in its place, is not the one that is watched
            if kind != ChangeKind.MODIFIED and path in self._watched:
                if path == self.directory.scanner.real:
                    self._rescan()
                self._watched = {d for d in self._watched if d != path and not d.startswith(f"{path}/")}
        self._names |= self.directory.scanner.names_of(path for _, path in changes)
        self._wake.set()

    def _rescan(self) -> None:
        self._next_scan = self._loop.time()

    async def _wait(self) -> None:
        """Wait until there is something to do."""
        now = self._loop.time()
        due = self._pending.next_due()
        until = min(self._next_scan, now + BEAT_S, now + BEAT_S if due is None else due)
        if until > now and not self._unclean:
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                if not await self._thread(self.directory.is_same):
                    self._rescan()
        self._wake.clear()

    async def _turn(self) -> None:
        """Look where there is something to be seen, then take some files."""
        names, self._names = self._names, set()
        whole = self._loop.time() >= self._next_scan or len(names) > MAX_NAMES
        if whole or names:
            try:
                await self._compare(None if whole else names)
            except DirectoryLost as error:
                self._lose(str(error))
        if self.online.is_set():
            await self._take_due()
        self._note_scanned()
        self._unclean = not self._pending.next_due() and await self._thread(self._store.clean)

    def _note_scanned(self) -> None:
        if self._give_up_at == float("inf"):
            return  # not compared yet
        tried = not self._untried and self._loop.time() > self._give_up_at
        self.scanned = self.scanned or tried or not len(self._pending)

    async def _compare(self, names: set[str] | None) -> None:
        began = self._loop.time()
        difference = await self._thread(self.directory.compare, self.records, names)
        took = self._loop.time() - began
        self.stats.scan_seconds += took
        if names is None:
            self.stats.scans += 1
            self._scan_s = took
            self._forget([name for name in self._pending if name not in difference.changed])
            if self._give_up_at == float("inf"):
                self._untried = set(difference.changed)
        else:
            self.stats.looks += 1
        await self._note(difference, names)
        if names is None:
            now = self._loop.time()
            self._next_scan = now + max(self._rescan_s, RESCAN_PACE * (now - began))
            self._set_online()
        await self._watch(difference.scan.directories, whole=names is None)

    async def _note(self, difference: Difference, names: set[str] | None) -> None:
        """Take note of a comparison: what is to be taken, what is gone."""
        now = self._loop.time()
        async for name, found in in_turns(difference.scan.files.items()):
            if found.file != name:
                self.files[name] = found.file
            else:
                self.files.pop(name, None)
        self._forget([name for name in names or () if name not in difference.changed])
        async for name, found in in_turns(difference.changed.items()):
            self._pending.see(name, found, now)
        floors = self.directory.generation_floors
        for name in [name for name in floors if name in difference.scan.files]:
            self._pending.see(name, difference.scan.files[name], now)
        if difference.gone:
            await self._thread(self._store.delete, self.root, difference.gone)
            async for name in in_turns(difference.gone):
                self.records.pop(name, None)
                self.files.pop(name, None)
                self._catalogue.apply(self.root, name, None)

    async def _watch(self, directories: set[str], *, whole: bool) -> None:
        """Watch the directories seen; what happened in new ones before is looked for once more."""
        new = directories - self._watched
        stale = len(self._watched - directories) if whole else 0
        if (
            new
            or stale > len(directories)
            or (not self._events.working and self._loop.time() > self._retry_at)
        ):
            self._watched = set(directories) if whole else self._watched | new
            self._retry_at = self._loop.time() + self._rescan_s
            await self._events.watch(self._watched)
            if whole and self._events.working:
                self._rescan()
            else:
                self._names |= self.directory.scanner.names_of(new)
        if not self._events.working:
            pace = max(1.0, NO_EVENTS_PACE * self._scan_s)
            self._next_scan = min(self._next_scan, self._loop.time() + pace)

    # -- online, offline -------------------------------------------------------------------------

    def _set_online(self) -> None:
        if not self.online.is_set():
            self.online.set()
            self.offline.clear()
            if self._give_up_at == float("inf"):
                self._give_up_at = self._loop.time() + self._max_settle_s
            log.info("root online", root=self.root, datasets=len(self.records))
        self._catalogue.set_state(self.root, "online")
        self._catalogue.confirm(self.root)

    def _lose(self, reason: str) -> None:
        """Note that the directory is not there: nothing is deleted, nothing is current for sure."""
        if not self.offline.is_set():
            log.warning("root offline", root=self.root, directory=self.directory.directory, reason=reason)
            self.offline.set()
            self.online.clear()
        self.scanned = True
        self._catalogue.set_state(self.root, "offline")
        self._catalogue.doubt(self.root)
        self._watched.clear()
        self._next_scan = self._loop.time() + min(self._rescan_s, BEAT_S)

    # -- taking ----------------------------------------------------------------------------------

    async def _take_due(self) -> None:
        """Take a batch of the files that are due."""
        now = self._loop.time()
        floors = self.directory.generation_floors
        candidates = [
            Candidate(
                name,
                found,
                None if name in floors else self.records.get(name),
                self._pending.settled(name, now),
            )
            for name, found in self._pending.take_due(now, BATCH_FILES)
        ]
        if candidates:
            outcomes = await self._thread(self.directory.take, candidates)
            async for candidate, outcome in in_turns(outcomes):
                self._conclude(candidate, outcome)

    def _conclude(self, candidate: Candidate, outcome: Outcome) -> None:
        name = candidate.name
        if isinstance(outcome, Wait):
            log.debug("not taken", root=self.root, name=name, reason=outcome.reason)
            self._pending.failed(name, self._loop.time())
            self._untried.discard(name)
            self.look(name)
            return
        self._forget([name])
        if isinstance(outcome, Taken):
            self.records[name] = outcome.record
            self._catalogue.apply(self.root, name, outcome.record.entry)
        elif self.records.pop(name, None) is not None:
            self._store.delete(self.root, [name])
            self._catalogue.apply(self.root, name, None)

    def _forget(self, names: Sequence[str]) -> None:
        """Note that files are as announced, or gone."""
        self._pending.forget(names)
        self._untried.difference_update(names)

    async def _thread(self, function: Callable[..., R], *args: object) -> R:
        return await self._loop.run_in_executor(self._executor, function, *args)
