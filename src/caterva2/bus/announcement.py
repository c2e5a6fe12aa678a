"""Announcing one root: the bus is made equal to the announcer's catalogue, and kept so.

Announcing is level-triggered: what is on the bus is read (all of it after every reconnection), compared, and
what differs is put. So a lost message, a wiped store or somebody else's writing is repaired without being
known as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from operator import attrgetter

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from caterva2.bus.buckets import ALIVE, BEAT_S, DATA, MARKER_TTL_S, Bucket
from caterva2.bus.claims import ClaimLost, ResetOf, check_claim, take_claim
from caterva2.bus.connection import Bus, checkpoint
from caterva2.bus.keys import data_key, parse_data_key, root_filter, root_key
from caterva2.bus.records import Claim, Heartbeat, decode_entry, encode_entry
from caterva2.bus.view import Change, View
from caterva2.errors import BusError, Corrupt, InvalidPath
from caterva2.model.catalogue import Catalogue, Event
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry, Root
from caterva2.turns import in_turns

__all__ = ["OURS", "WAITING", "Announcement", "Behind"]

ASKED_S = 1.0
"""How long a heartbeat waits for the answer whose the root is, in seconds."""

NEWS_S = 0.2
"""Least pause before a heartbeat out of turn, when the bus has just become equal to the catalogue."""

GATHER_S = 0.002
"""How long changes gather before they are put, in seconds."""

HELD_S = 0.5
"""How often it is looked whether what is held back has come, in seconds."""

WINDOW = 500
"""Most puts under way."""

COMPARED = 2000
"""Most datasets compared before others get a turn on the event loop."""

WAITING = "waiting"
OURS = "ours"

Behind = Callable[[DatasetPath, int], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Put:
    """A dataset as it is put."""

    name: str
    entry: Entry
    value: bytes


class _ClaimChanged(Exception):
    """The root is to be claimed with something else by now."""


class Announcement:
    """Announces one root; parameters as of `caterva2.bus.announcer.Announcer`, which makes these.

    It is also the `caterva2.bus.view.Follower` of the root's datasets on the bus.
    """

    def __init__(
        self,
        bus: Bus,
        catalogue: Catalogue,
        root: str,
        claim_of: Callable[[str], Claim],
        *,
        claims: dict[str, str],
        on_behind: Behind | None,
        reset_of: ResetOf,
        is_coming: Callable[[str, str], bool],
    ) -> None:
        self._bus = bus
        self._catalogue = catalogue
        self._root = root
        self._claim_of = claim_of
        self._claim = claim_of(root)  # with the reset that it was claimed with
        self._claims = claims
        self._on_behind = on_behind
        self._reset_of = reset_of
        self._is_coming = is_coming
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what was on the bus."""
        self._view = View(self._bus, DATA, root_filter(self._root), self)
        self._there = Root(self._root)
        self._seen: set[str] = set()
        self._strays: set[str] = set()  # keys with something that is not ours to read
        self._dirty: set[str] = set()
        self._held: set[str] = set()  # to be deleted, unless they come
        self._compare_all = False
        self._under_way: dict[str, _Put] = {}  # by key, until it comes back
        self._acknowledged: dict[str, int] = {}
        self._told = ""  # the digest of the last heartbeat
        self._work.clear()
        self._read = asyncio.Event()  # all of it, at least once

    async def run(self) -> None:
        """Announce it until cancelled."""
        stop = self._catalogue.listen(self._on_event)
        try:
            while True:
                checkpoint()
                try:
                    # a task of its own: a group that failed leaves its task asked to be cancelled (in Python
                    # 3.11), which `checkpoint` would take for an end
                    await asyncio.create_task(self._announce())
                except* ClaimLost as lost:
                    log.warning("root lost", root=self._root, reason=str(lost.exceptions[0]))
                    self._claims[self._root] = WAITING
                except* _ClaimChanged:
                    log.info("root comes another way now, claiming it anew", root=self._root)
                except* (BusError, NatsError, TimeoutError, OSError) as failed:
                    log.debug("announcing interrupted", root=self._root, reason=str(failed.exceptions[0]))
                await asyncio.sleep(random.uniform(0.05, 0.2))
        finally:
            stop()

    async def _announce(self) -> None:
        """Claim the root and announce it, over one connection."""
        async with self._bus.session() as client:
            await self._announce_over(client)

    async def _announce_over(self, client: Client) -> None:
        self._claim = await take_claim(client, self._root, self._claim_of, self._on_refused, self._reset_of)
        if self._claims[self._root] != OURS:
            log.info("root claimed", root=self._root)
            self._claims[self._root] = OURS
        self._begin_anew()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._view.run())
            group.create_task(self._put(Bucket(client, DATA)))
            group.create_task(self._beat(client))

    def _on_refused(self, reason: str) -> None:
        if self._claims[self._root] != reason:
            log.warning("root refused, will keep trying", root=self._root, reason=reason)
            self._claims[self._root] = reason

    def beat_soon(self) -> None:
        """Send a heartbeat out of turn."""
        self._news.set()

    # -- what is on the bus --------------------------------------------------------------------------

    def begin(self) -> None:
        """Note that all is going to be told."""
        self._seen = set()
        self._strays = set()

    def done(self) -> None:
        """Note that all was told."""
        for name in self._there.entries.keys() - self._seen:
            self._there.put(name, None)
        self._pass_others()
        self._compare_all = True
        self._read.set()
        self._work.set()

    def change(self, change: Change) -> None:
        """Take in what a dataset has become on the bus."""
        try:
            name, entry = self._read_change(change)
        except (InvalidPath, Corrupt) as error:
            log.warning("repairing a malformed dataset on the bus", key=change.key, reason=str(error))
            self._strays.add(change.key)
            self._work.set()
            return
        self._strays.discard(change.key)
        if not self._view.synced:
            self._seen.add(name)
        self._there.put(name, entry)
        acknowledged = self._acknowledged.get(name, 0)
        if change.revision >= acknowledged:
            self._acknowledged.pop(name, None)
            if entry != self._want(name):
                self._dirty.add(name)
                self._work.set()
        if self.in_sync and self._there.digest != self._told:
            self._news.set()

    def _read_change(self, change: Change) -> tuple[str, Entry | None]:
        """Return a dataset's name, and what it became; what comes back as it was put is known already."""
        put = self._under_way.pop(change.key, None)
        if put is not None and put.value == change.value:
            return put.name, put.entry
        name = parse_data_key(change.key).name
        return name, None if change.value is None else decode_entry(change.value)

    def _pass_others(self) -> None:
        """Tell what is missing on the bus, if that is ahead of us: another had the root, or we were set back.

        It may have been deleted meanwhile. Who saw that would take our version for an old one.
        """
        wanted, newest = self._wanted().entries, _newest(self._there)
        if newest > _newest(self._wanted()):
            for name in wanted.keys() - self._there.entries.keys():
                if not self._gives_way(name):
                    self._tell_behind(name, newest)

    def _tell_behind(self, name: str, generation: int) -> None:
        path = DatasetPath(self._root, name)
        if self._on_behind is not None:
            self._on_behind(path, generation)
        else:
            log.warning("the bus has a later generation", path=str(path), generation=generation)

    # -- what should be there ------------------------------------------------------------------------

    def _on_event(self, event: Event, _: Entry | None) -> None:
        root, _slash, name = event.path.partition("/")
        if root == self._root and name:
            self._dirty.add(name)
            self._work.set()

    def _wanted(self) -> Root:
        return self._catalogue.roots.get(self._root) or Root(self._root)

    def _want(self, name: str) -> Entry | None:
        return self._wanted().entries.get(name)

    @property
    def in_sync(self) -> bool:
        """Whether the root is ours and the bus equals the catalogue."""
        wanted = self._wanted()
        return (
            self._view.synced
            and self._claims[self._root] == OURS
            and not self._strays
            and len(wanted.entries) == len(self._there.entries)
            and wanted.digest == self._there.digest
        )

    # -- making them equal ---------------------------------------------------------------------------

    async def _put(self, bucket: Bucket) -> None:
        await self._read.wait()
        while True:
            checkpoint()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HELD_S if self._held else None):
                    await self._work.wait()
            await asyncio.sleep(GATHER_S)
            self._work.clear()
            self._dirty |= self._held
            self._held.clear()
            strays, self._strays = self._strays, set()
            await asyncio.gather(*(bucket.delete(key, MARKER_TTL_S) for key in strays))
            names, self._dirty = self._dirty, set()
            if self._compare_all:
                self._compare_all = False
                names = {*self._wanted().entries, *self._there.entries}
            await self._put_names(bucket, names)

    def _is_different(self, name: str) -> bool:
        """Return whether a dataset is to be put, or deleted, now."""
        wanted, there = self._want(name), self._there.entries.get(name)
        if wanted is None:
            if there is not None and self._is_coming(self._root, name):
                self._held.add(name)
                return False
            return there is not None
        if there is not None and there.generation >= wanted.generation and there.etag != wanted.etag:
            if self._gives_way(name):
                self._held.add(name)
                return False
            self._tell_behind(name, there.generation)
            return self._on_behind is None
        return wanted != there

    def _gives_way(self, name: str) -> bool:
        """Return whether a later version of a dataset stays on the bus, where nobody makes ours later."""
        return self._on_behind is None and self._is_coming(self._root, name)

    async def _put_names(self, bucket: Bucket, names: Iterable[str]) -> None:
        remaining = iter(names)
        try:
            while compared := list(islice(remaining, COMPARED)):
                for window in _windows(name for name in compared if self._is_different(name)):
                    checkpoint()
                    await self._put_window(bucket, window)
                await asyncio.sleep(0)
        except BusError as error:
            log.warning("cannot announce, will try again", root=self._root, reason=str(error))
            self._dirty.update(chain(compared, remaining))
            self._work.set()
            await asyncio.sleep(BEAT_S)

    async def _put_window(self, bucket: Bucket, names: Iterable[str]) -> None:
        puts: dict[str, _Put] = {}
        gone: list[str] = []
        async for name in in_turns(names):
            entry = self._want(name)
            if entry is None:
                gone.append(name)
            else:
                puts[data_key(self._root, name)] = _Put(name, entry, encode_entry(entry))
        await asyncio.gather(self._put_all(bucket, puts), *(self._delete(bucket, name) for name in gone))

    async def _put_all(self, bucket: Bucket, puts: dict[str, _Put]) -> None:
        self._under_way.update(puts)
        revisions = await bucket.put_all({key: put.value for key, put in puts.items()})
        for key, revision in revisions.items():
            self._on_acknowledged(puts[key].name, revision)

    async def _delete(self, bucket: Bucket, name: str) -> None:
        revision = await bucket.delete(data_key(self._root, name), MARKER_TTL_S)
        self._on_acknowledged(name, revision)

    def _on_acknowledged(self, name: str, revision: int) -> None:
        if revision > self._view.revision:
            self._acknowledged[name] = revision

    # -- heartbeats ----------------------------------------------------------------------------------

    async def _beat(self, client: Client) -> None:
        alive, loop = Bucket(client, ALIVE), asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                with contextlib.suppress(
                    TimeoutError
                ):  # who cannot be asked cannot give it to another either
                    async with asyncio.timeout(ASKED_S):
                        await check_claim(client, self._root, self._claim)
                if replace(self._claim_of(self._root), reset=self._claim.reset) != self._claim:
                    raise _ClaimChanged
                while loop.time() < began + BEAT_S:
                    checkpoint()
                    self._news.clear()
                    await alive.put(root_key(self._root), self._heartbeat().encode())
                    await asyncio.sleep(NEWS_S)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(began + BEAT_S):
                            await self._news.wait()
            except (ClaimLost, _ClaimChanged):
                raise
            except BusError as error:
                log.debug("heartbeat failed", root=self._root, reason=str(error))
                await asyncio.sleep(NEWS_S)

    def _heartbeat(self) -> Heartbeat:
        wanted = self._wanted()
        age_s = wanted.freshness.age_s if self._claim.origin else 0.0
        # a root that was just removed from the catalogue is not known: of it nothing is said
        digest = self._there.digest if self.in_sync and math.isfinite(age_s) else None
        self._told = digest or ""
        return Heartbeat(
            self._claim.instance,
            self._claim.url,
            len(self._there.entries),
            digest,
            self._view.epoch,
            self._view.revision,
            max(self._claim.reset, wanted.reset_at),
            0.0 if digest is None else age_s,
        )


def _newest(root: Root) -> int:
    return max(map(attrgetter("generation"), root.entries.values()), default=0)


def _windows(names: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(names)
    while window := list(islice(remaining, WINDOW)):
        yield window
