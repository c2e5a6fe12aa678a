"""What is known of one of several sources: how far it is, how busy, how silent it can be, whether it lies."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Literal

from caterva2.errors import Caterva2Error, Changed, IntegrityError, NotCached, NotFound
from caterva2.source.http import HttpSource
from caterva2.source.upstream import Declined, Nonsense, WrongVersion

__all__ = ["Kind", "SourceState", "SourcesStats", "Standing"]

SourceState = Literal["ok", "down", "hung", "quarantined"]
"""``down``: it failed a moment ago; ``hung``: it answers nothing; ``quarantined``: it sent what is wrong."""

Kind = Literal["origin", "further"]

CONSTANT_S = 0.0005
"""Is added to each round trip, in seconds: what is nearer than this is equally near."""

ROUND_TRIPS = 6
"""The least of so many is how far a source is: the others were waiting for something."""

SILENCES = 200
"""Of how many attempts it is remembered how long a source was silent at most."""

ENOUGH = 20
"""With fewer of them nothing is concluded."""

FIRST_PATIENCE_S = 0.25
LEAST_PATIENCE_S = 0.02
MOST_PATIENCE_S = 1.0
"""Silence after which another source may be asked as well, in seconds: the 95th percentile of its silences
within these bounds, and the first while too little is known."""

LEAST_STALL_S = 1.0
MOST_STALL_S = 4.0
"""Silence after which another is asked in any case, in seconds: twice that percentile, within these."""

STRIKES = 3
"""A source to which others were preferred so often in a row, for its silence, is down."""

DOWN_S = 1.0
MOST_DOWN_S = 10.0
"""A source that fails is asked last for so long, in seconds: doubling each time."""

QUARANTINE_S = 60.0
MOST_QUARANTINE_S = 600.0
"""A source that sent wrong bytes is not asked for so long, in seconds: doubling each time."""

ASK_S = 0.2
"""A source that is silent is asked why, and has so long to answer, in seconds."""

AT_WORK_S = 1.0
"""It is at work if it heard of those that it fetches from within this, in seconds."""

REFUSED_S = 0.5
MOST_REFUSED_S = 30.0
"""A version that a source does not have is not asked of it for so long, in seconds: doubling each time."""

REFUSALS = 10_000
"""Of how many versions it is remembered that a source does not have them."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SourcesStats:
    """What happened in choosing among several sources.

    Attributes
    ----------
    hedges : int
        Times that another source was asked as well, because one was silent.
    failovers : int
        Times that another was asked because one failed, or did not have it.
    quarantines : int
        Times that a source was found to send what is wrong.
    """

    hedges: int = 0
    failovers: int = 0
    quarantines: int = 0


@dataclass(slots=True)
class _Penalty:
    """Something is avoided until a time, for longer each time that it failed again since."""

    until: float = float("-inf")
    next_s: float = 0.0

    def extend(self, now: float, first_s: float, most_s: float) -> bool:
        if self.until > now:  # of several requests that were under way
            return False
        pause_s = min(self.next_s or first_s, most_s)
        self.until, self.next_s = now + pause_s, 2 * pause_s
        return True


class Standing:
    """One source, with what is known of it. Belongs to one event loop.

    Parameters
    ----------
    source : HttpSource
        Its `UpstreamStats` are its own.
    kind : {"origin", "further"}
    slots : int
        How many requests may be under way to it.
    stats : SourcesStats
        Is added to.

    Attributes
    ----------
    announced_load : float
        How many requests wait there, on the average, where one more finds it busy, as it says.
    hedged : int
        Times that another source was asked as well, because this one was silent.
    used_at, probed_at : float
        Loop time at which it was last among those to choose from, and at which it was last probed.
    """

    def __init__(self, source: HttpSource, kind: Kind, slots: int, stats: SourcesStats) -> None:
        self.source = source
        self.kind: Kind = kind
        self.announced_load = 0.0
        self.hedged = 0
        self.used_at = float("-inf")
        self.probed_at = float("-inf")
        self._slots = slots
        self._stats = stats
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._silences: deque[float] = deque(maxlen=SILENCES)
        self._percentile_s: float | None = None
        self._down = _Penalty()
        self._quarantine = _Penalty()
        self._refusals: dict[tuple[str, str], _Penalty] = {}
        self._strikes = 0
        self._probing: asyncio.Task[None] | None = None

    # -- how it is -------------------------------------------------------------------------------

    @property
    def state(self) -> SourceState:
        """How it is now."""
        now = _now()
        if self._quarantine.until > now:
            return "quarantined"
        condition = self.source.condition
        return "down" if condition == "ok" and self._down.until > now else condition

    @property
    def left_s(self) -> float | None:
        """For how long it stays quarantined or down, in seconds; None where that has no end or it is well."""
        until = {"quarantined": self._quarantine.until, "down": self._down.until}.get(self.state, 0.0)
        return until - _now() if until > _now() else None

    @property
    def round_trip_s(self) -> float | None:
        """How far it is, in seconds; None if that was not found out yet."""
        return min(self._round_trips, default=None)

    @property
    def load(self) -> float:
        """How busy it is: requests that wait there, as it says, and ours for each that we may have."""
        stats = self.source.stats
        return self.announced_load + (stats.in_flight + stats.waiting) / self._slots

    @property
    def cost_s(self) -> float:
        """What asking it costs, in seconds: to be compared with others'."""
        round_trip_s = self.round_trip_s
        return float("inf") if round_trip_s is None else (round_trip_s + CONSTANT_S) * (1 + self.load)

    @property
    def last(self) -> bool:
        """Whether it is to be asked only when all others failed."""
        return self.state != "ok" or self._probing is not None

    def lacks(self, path: str, etag: str) -> bool:
        """Return whether it said a moment ago that it does not have a version."""
        refusal = self._refusals.get((path, etag))
        return refusal is not None and refusal.until > _now()

    # -- patience --------------------------------------------------------------------------------

    @property
    def patience_s(self) -> float:
        """Silence after which another may be asked as well, in seconds."""
        if len(self._silences) < ENOUGH:
            return FIRST_PATIENCE_S
        return min(max(self._percentile(), LEAST_PATIENCE_S), MOST_PATIENCE_S)

    @property
    def stall_s(self) -> float:
        """Silence after which another is asked in any case, in seconds."""
        usual_s = self._percentile() if len(self._silences) >= ENOUGH else 0.0
        return min(max(2 * usual_s, LEAST_STALL_S), MOST_STALL_S)

    def _percentile(self) -> float:
        if self._percentile_s is None:
            self._percentile_s = sorted(self._silences)[int(0.95 * len(self._silences))]
        return self._percentile_s

    def was_silent(self, longest_s: float) -> None:
        """Note the longest silence of an attempt, in seconds."""
        self._silences.append(longest_s)
        self._percentile_s = None

    # -- what happens ----------------------------------------------------------------------------

    def answered(self, path: str, etag: str) -> None:
        """Note that it gave what was asked for, and that it was right."""
        self._strikes = 0
        self._down.next_s = 0.0
        self._refusals.pop((path, etag), None)

    def failed(self, error: Caterva2Error, path: str, etag: str) -> None:
        """Conclude from an error."""
        now = _now()
        if isinstance(error, IntegrityError | Nonsense | WrongVersion) and self.kind == "further":
            if self._quarantine.extend(now, QUARANTINE_S, MOST_QUARANTINE_S):
                self._stats.quarantines += 1
                left_s = self._quarantine.until - now
                log.warning("%s is not asked for %.0f s: %s", self.source.name, left_s, error)
        elif isinstance(error, NotCached | Declined | Changed | NotFound) and self.kind == "further":
            self._refuse(path, etag, now)
        else:
            self._down.extend(now, DOWN_S, MOST_DOWN_S)

    def _refuse(self, path: str, etag: str, now: float) -> None:
        if len(self._refusals) >= REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._refusals.setdefault((path, etag), _Penalty()).extend(now, REFUSED_S, MOST_REFUSED_S)

    def was_beaten(self, silent_s: float) -> None:
        """Note that another source answered, while this one was silent for longer than it should be."""
        self._strikes += 1
        if self._strikes >= STRIKES or silent_s >= self.stall_s:
            self._strikes = 0
            self._down.extend(_now(), DOWN_S, MOST_DOWN_S)
        if self._probing is None:  # until that is answered it is asked last
            self._probing = asyncio.create_task(self._probe_once())

    async def _probe_once(self) -> None:
        try:
            await self.probe()
        finally:
            self._probing = None

    async def probe(self) -> bool:
        """Find out how far it is; return whether it is there."""
        self.probed_at = _now()
        round_trip_s = await self.source.probe()
        if round_trip_s is not None:
            self.is_as_far_as(round_trip_s)
        return round_trip_s is not None

    def is_as_far_as(self, round_trip_s: float) -> None:
        """Note a round trip, in seconds."""
        self._round_trips.append(round_trip_s)

    async def is_at_work(self) -> bool:
        """Ask whether it is fetching something, and being answered: then it is silent for a good reason."""
        if self.source.only_if_cached:
            return False
        try:
            async with asyncio.timeout(ASK_S):
                if await self.source.probe() is None:
                    return False
        except TimeoutError:
            return False
        return self.source.fetching_s is not None and self.source.fetching_s < AT_WORK_S

    async def close(self) -> None:
        """End what is under way."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
