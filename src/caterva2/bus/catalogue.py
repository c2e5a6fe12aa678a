"""A catalogue filled from the bus: what is published, by whom, and whether that is confirmed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from caterva2.bus.buckets import ALIVE, ALIVE_TTL_S, DATA, ROOTS, Gone
from caterva2.bus.connection import Bus
from caterva2.bus.keys import parse_data_key, parse_root_key
from caterva2.bus.leader import Leader
from caterva2.bus.records import Claim, Heartbeat, decode_entry
from caterva2.bus.view import Change, Position, View
from caterva2.errors import Corrupt, InvalidPath
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Entry, Root

__all__ = ["CatalogueView"]

TICK_S = 0.25
"""How often clocks are looked at, in seconds."""

SILENT_S = 3.0
"""Without a heartbeat for this long it is asked whether the bus could take one: two were due, in seconds."""

GRACE_S = 2.0
"""Cut off for less than this, what was known of a root's state stays, in seconds."""

RESYNC_PAUSE_S = 5.0
"""Least pause between two readings of everything that disagreement asked for; doubles up to 16 times that."""

HISTORY = 1000
"""How many past digests of a root are kept, to compare a heartbeat with what was seen when it was made."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Presence:
    """What is known of a root beside its catalogue."""

    beat: Heartbeat | None = None
    beat_at: float = 0.0
    judged: bool = True
    disagreed: int = 0
    said_behind: int = 0
    confirmed_at: float = float("-inf")
    seen: set[str] | None = None
    unseen: set[str] = field(default_factory=set)
    history: deque[tuple[int, str, int]] = field(default_factory=lambda: deque(maxlen=HISTORY))


@dataclass(frozen=True, slots=True)
class _Follower:
    """A `caterva2.bus.view.Follower` made of functions."""

    change: Callable[[Change], None]
    begin: Callable[[], None] = lambda: None
    done: Callable[[], None] = lambda: None


class CatalogueView:
    """Fills a catalogue from the bus and keeps it current.

    The catalogue may have entries from before (loaded from disk). An entry is deleted when its deletion is
    seen as it happens, or when all was read, the entry was not there, and the root's publisher confirms that
    it put all: a bus that lost its store, or was rolled back, with no publisher to fill it again, empties
    nothing. A root is forgotten only when its claim is deleted.

    A root is *fresh* while its publisher's heartbeats come and their digest equals the catalogue's. Where the
    publisher announces older generations than were seen here, it is not, until the publisher is reset: then
    what it announces is taken as it is. A root that a tier announces is no fresher than it is there.

    Parameters
    ----------
    bus : Bus
    catalogue : Catalogue
    position : Position, optional
        How far the view came that the catalogue is from: what was before is not read again, unless the bus
        is another one by now, or the digest of a heartbeat differs.
    instance : str, optional
        Our own, if we are a tier: a root that came through us is not followed, what was known of it stays.

    Attributes
    ----------
    loops : set of str
        Roots that are announced here by who has them from us.
    """

    def __init__(
        self, bus: Bus, catalogue: Catalogue, position: Position | None = None, *, instance: str = ""
    ) -> None:
        self._bus = bus
        self._instance = instance
        self.loops: set[str] = set()
        self._catalogue = catalogue
        self._presences: dict[str, _Presence] = {}
        self._orphans: dict[str, dict[str, Entry]] = {}
        self._filling = False
        self._cut_off_at: float | None = time.monotonic()
        self._back_at = 0.0
        self._resync_after = 0.0
        self._resync_pause_s = RESYNC_PAUSE_S
        self.roots = View(bus, ROOTS, ">", _Follower(self._on_root))
        follower = _Follower(self._on_entry, self._on_begin, self._on_done)
        self.data = View(bus, DATA, ">", follower, position)
        self.alive = View(bus, ALIVE, ">", _Follower(self._on_alive))
        self._leader = Leader(bus, ALIVE, self._is_silent)

    @property
    def synced(self) -> bool:
        """Whether all that is on the bus was told."""
        return self.roots.synced and self.data.synced and self.alive.synced

    @property
    def position(self) -> Position | None:
        """How far it has come; None while something that was told is not in the catalogue, or too much is."""
        apart = (
            self._filling
            or bool(self.loops)
            or any(self._orphans.values())
            or any(presence.unseen for presence in self._presences.values())
            or any(root.behind for root in self._catalogue.roots.values())
        )
        return None if apart else self.data.position

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for part in (self.roots, self.data, self.alive, self._leader):
                group.create_task(part.run())
            while True:
                await asyncio.sleep(TICK_S)
                self._tick()

    def _presence(self, root: str) -> _Presence:
        presence = self._presences.get(root)
        if presence is None:
            presence = self._presences[root] = _Presence()
        return presence

    # -- what the views tell -----------------------------------------------------------------------

    def _on_root(self, change: Change) -> None:
        try:
            root = parse_root_key(change.key)
            claim = None if change.value is None else Claim.decode(change.value)
        except (InvalidPath, Corrupt) as error:
            log.warning("skipped a malformed root on the bus", key=change.key, reason=str(error))
            return
        if claim is None:
            self._on_root_removed(root)
            return
        if self._instance and self._instance in claim.via:
            self._refuse(root, claim)
            return
        if root in self.loops:
            self.loops.discard(root)
            self.data.resync(f"root {root!r} does not come from here any more")
        new = root not in self._catalogue.roots
        self._catalogue.set_root(
            root,
            url=claim.url,
            title=claim.title,
            instance=claim.instance,
            origin=claim.origin,
            via=claim.via,
        )
        if new:
            for name, entry in self._orphans.pop(root, {}).items():
                self._catalogue.apply(root, name, entry)
        self._judge(root)

    def _refuse(self, root: str, claim: Claim) -> None:
        if root not in self.loops:
            log.warning("root comes from here, and is not followed", root=root, url=claim.url)
            self.loops.add(root)
            self._presences.pop(root, None)
            self._orphans.pop(root, None)

    def _on_root_removed(self, root: str) -> None:
        self.loops.discard(root)
        known = self._catalogue.roots.get(root)
        if known is not None:
            # still on the bus; they come back with the root
            self._orphans[root] = dict(known.entries)
            self._catalogue.remove_root(root)
        self._presences.pop(root, None)

    def _on_begin(self) -> None:
        self._filling = True
        for presence in self._presences.values():
            presence.seen, presence.unseen = None, set()
            presence.history.clear()
        for root in self._catalogue.roots:
            self._presence(root).seen = set()
            self._catalogue.look_again(root)

    def _on_done(self) -> None:
        self._filling = False
        for root, presence in self._presences.items():
            if presence.seen is not None and root in self._catalogue.roots:
                presence.unseen = self._catalogue.roots[root].entries.keys() - presence.seen
            presence.seen = None
            presence.history.clear()  # of a mixture of old and new
            if not presence.judged:
                self._judge(root)

    def _on_entry(self, change: Change) -> None:
        try:
            path = parse_data_key(change.key)
            entry = None if change.value is None else decode_entry(change.value)
        except (InvalidPath, Corrupt) as error:
            log.warning("skipped a malformed dataset on the bus", key=change.key, reason=str(error))
            return
        if path.root in self.loops:
            return
        presence = self._presence(path.root)
        root = self._catalogue.roots.get(path.root)
        if presence.seen is not None:
            if entry is None and root is not None:
                # Perhaps of an earlier dataset of that name, in a store that was rolled back: it goes when
                # its publisher confirms that, like one that is not there
                presence.seen.discard(path.name)
                return
            presence.seen.add(path.name)
        presence.unseen.discard(path.name)
        if root is None:
            orphans = self._orphans.setdefault(path.root, {})
            if entry is None:
                orphans.pop(path.name, None)
            else:
                orphans[path.name] = entry
            return
        self._catalogue.apply(path.root, path.name, entry)
        if self._filling:
            return  # of a part of what is there nothing can be said
        if not presence.unseen:
            presence.history.append((change.revision, root.digest, len(root.entries)))
        if not presence.judged:
            self._judge(path.root)

    def _on_alive(self, change: Change) -> None:
        try:
            root = parse_root_key(change.key)
            beat = None if change.value is None else Heartbeat.decode(change.value)
        except (InvalidPath, Corrupt) as error:
            log.warning("skipped a malformed heartbeat on the bus", key=change.key, reason=str(error))
            return
        presence = self._presence(root)
        if beat is None:
            if change.gone is Gone.DELETED:  # withdrawn by a publisher that stops; expiry has our own clock
                presence.beat = None
                if root in self._catalogue.roots:
                    self._catalogue.doubt(root)
                    self._catalogue.set_state(root, "offline")
            return
        presence.beat, presence.beat_at, presence.judged = beat, time.monotonic(), False
        self._judge(root)

    # -- what follows from it ------------------------------------------------------------------------

    def _judge(self, name: str) -> None:
        """Conclude from a root's last heartbeat, if what it takes was seen already."""
        root, presence = self._catalogue.roots.get(name), self._presence(name)
        beat = presence.beat
        if root is None or beat is None or not self._beats(root, presence):
            return
        if time.monotonic() - presence.beat_at > ALIVE_TTL_S or not self._bus.connected:
            return
        self._catalogue.set_state(name, "online")
        if presence.judged or not self.data.synced:
            return
        if beat.digest is None or beat.epoch != self.data.epoch:
            presence.judged = True
            if beat.digest is not None:
                self._disagree(name, presence, "the stream is another one")
            return
        if beat.revision > self.data.revision:
            return  # judged when that change comes
        presence.judged = True
        for dataset in presence.unseen:
            self._catalogue.apply(name, dataset, None)
        presence.unseen = set()
        if beat.reset > root.reset_at:
            self._reset(root, presence, beat.reset)
        known = self._known_at(root, presence, beat.revision)
        if known is None:
            return
        if (beat.digest, beat.count) == known:
            self._agree(root, presence, beat.age_s)
        else:
            self._disagree(name, presence, "digests differ")

    def _agree(self, root: Root, presence: _Presence, age_s: float) -> None:
        presence.disagreed = 0
        self._resync_pause_s = RESYNC_PAUSE_S
        if age_s == 0.0:
            presence.confirmed_at = time.monotonic()
            self._catalogue.confirm(root.name)
        else:  # as the tier has it; whether that is current, it cannot tell
            self._catalogue.doubt(root.name, time.time() - age_s)

    def _reset(self, root: Root, presence: _Presence, reset_at: int) -> None:
        """Take the catalogue of a publisher that was reset, and that is all on the bus, as it is."""
        if root.confirmed_at is not None:
            log.warning("root was reset by its publisher", root=root.name, older_now=len(root.behind))
        self._catalogue.reset(root.name, reset_at)
        presence.history.clear()
        presence.said_behind = 0

    def _known_at(self, root: Root, presence: _Presence, revision: int) -> tuple[str, int] | None:
        """Return digest and count of a root as of a revision; None if that is forgotten."""
        if not presence.history or presence.history[-1][0] <= revision:
            return root.digest, len(root.entries)
        for seen, digest, count in reversed(presence.history):
            if seen <= revision:
                return digest, count
        return None

    def _disagree(self, name: str, presence: _Presence, why: str) -> None:
        presence.disagreed += 1
        if presence.disagreed < 2:
            return
        self._catalogue.doubt(name)
        self._say_behind(name, presence)
        now = time.monotonic()
        if now >= self._resync_after:
            self._resync_after = now + self._resync_pause_s
            self._resync_pause_s = min(2 * self._resync_pause_s, 16 * RESYNC_PAUSE_S)
            presence.disagreed = 0
            self.data.resync(f"root {name!r}: {why}")

    def _say_behind(self, name: str, presence: _Presence) -> None:
        behind = len(self._catalogue.root(name).behind)
        if behind and behind != presence.said_behind:
            log.warning(
                "the publisher announces older versions than were seen here: they are not taken. Was it, and "
                "the broker, set back to an earlier time? Then start it with --reset",
                root=name,
                datasets=behind,
            )
        presence.said_behind = behind

    def _tick(self) -> None:
        now = time.monotonic()
        if not (self.synced and self._bus.connected and self._leader.there):
            self._cut_off_at = self._cut_off_at or now
        elif self._cut_off_at is not None:
            self._cut_off_at, self._back_at = None, now
        for name, root in list(self._catalogue.roots.items()):
            presence = self._presence(name)
            if not presence.judged:
                self._judge(name)
            lapsed = now - presence.confirmed_at > ALIVE_TTL_S
            if root.fresh and (lapsed or self._cut_off_at is not None):
                self._catalogue.doubt(name)
            if self._cut_off_at is None:
                # publishers were cut off too, perhaps: each has the time of a heartbeat since we are back
                heard_at = presence.beat_at if self._beats(root, presence) else 0.0
                if now - max(heard_at, self._back_at) > ALIVE_TTL_S:
                    self._catalogue.set_state(name, "offline")
            elif now - max(self._cut_off_at, presence.beat_at) > GRACE_S:
                self._catalogue.set_state(name, "unknown")

    def _is_silent(self) -> bool:
        """Return whether a publisher is about to be taken for gone."""
        now = time.monotonic()
        return any(
            root.state == "online" and now - self._presence(name).beat_at > SILENT_S
            for name, root in self._catalogue.roots.items()
        )

    def _beats(self, root: Root, presence: _Presence) -> bool:
        return presence.beat is not None and presence.beat.instance == root.instance
