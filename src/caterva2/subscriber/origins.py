"""Who is asked for the bytes of a root: its publisher, and further sources where there are any."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import aiohttp

from caterva2.bus.records import SourceBeat, is_url
from caterva2.config import SubscriberSettings
from caterva2.errors import Unavailable
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.model.root import Root
from caterva2.source.hedging import Budget
from caterva2.source.http import HttpSource, UpstreamStats
from caterva2.source.maker import SliceMaker
from caterva2.source.protocol import Source
from caterva2.source.several import SeveralSources
from caterva2.source.standing import Kind, SourcesStats, SourceState, Standing
from caterva2.source.stats import PartStats

__all__ = ["Origins", "SourceReport"]

TICK_S = 0.25
"""How often it is looked whom to probe, in seconds."""

PROBE_S = 10.0
BAD_PROBE_S = 2.0
"""Pause between probes of a source in use, and of one that is not well, in seconds."""

WARM_S = 50.0
"""A publisher of which nothing was heard for so long is probed: a connection to it stays open."""

FIRST_PROBES = 3
"""So often a source is probed when it is first seen: the first time a connection is made as well."""

USED_S = 30.0
"""A source is in use for so long after it was last among those to choose from, in seconds."""

KEPT_S = 600.0
"""What is known of a source is kept for so long after nobody named it any more, in seconds."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What is known of a source of a root.

    Attributes
    ----------
    url : str
    kind : str
        ``origin`` or ``further``.
    state : str
        ``ok``, ``down``, ``hung`` or ``quarantined``.
    rtt_ms : float or None
        Round trip, in milliseconds; None where it was not measured, as there was nothing to choose.
    load : float
        Requests that wait there, as it says, and ours for each that we may have.
    requests, bytes, rejected : int
        Answers that began, bytes of body, and extents that did not match their digest.
    hedged : int
        Times that another source was asked as well, because this one was silent.
    until : float or None
        Until when it is asked last, or not at all, in seconds since the epoch.
    """

    url: str
    kind: Kind
    state: SourceState
    rtt_ms: float | None
    load: float
    requests: int
    bytes: int
    rejected: int
    hedged: int
    until: float | None


class Origins:
    """One source for each publisher and further source that is named, sharing a connection pool.

    Use it as an async context manager.

    Parameters
    ----------
    catalogue : Catalogue
    settings : SubscriberSettings
    further : callable
        Returns the further sources of a root.
    only_if_cached : bool
        Further sources are asked for what they have only. So does who is one itself: nobody waits in a
        circle.

    Attributes
    ----------
    stats : UpstreamStats
        Of all of them.
    choices : SourcesStats
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: SubscriberSettings,
        further: Callable[[str], Sequence[SourceBeat]] = lambda _root: (),
        *,
        only_if_cached: bool = False,
    ) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._further = further
        self._only_if_cached = only_if_cached
        self._standings: dict[tuple[str, Kind], Standing] = {}
        self._named_at: dict[tuple[str, Kind], float] = {}
        self._budget = Budget()
        self._session: aiohttp.ClientSession | None = None
        self.stats = UpstreamStats()
        self.choices = SourcesStats()

    async def __aenter__(self) -> Origins:
        # each source bounds its own requests
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=WARM_S + PROBE_S)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._session is not None
        for standing in self._standings.values():
            await standing.close()
        await self._session.close()

    def source(self, path: DatasetPath) -> Source:
        """Return who serves a dataset now.

        Raises
        ------
        NotFound
            If there is no such root.
        Unavailable
            If its publisher is known to be gone, and there are no further sources.
        """
        root = self._catalogue.root(path.root)
        origin = self._origin(root)
        further = self._further_of(root)
        if further:
            now = asyncio.get_running_loop().time()
            for standing in further if origin is None else (origin, *further):
                standing.used_at = now
            return SeveralSources(origin, further, self._budget, self.choices)
        if origin is None:
            raise Unavailable(
                f"root {root.name!r} is offline: its publisher {root.url or '(never seen)'} is gone, and "
                "this part of the data is not cached here"
            )
        return origin.source

    def maker(self, path: DatasetPath) -> SliceMaker | None:
        """Return who makes slices of a dataset now: its publisher, whose manifests are believed, alone."""
        root = self._catalogue.roots.get(path.root)
        origin = None if root is None else self._origin(root)
        return None if origin is None or origin.state != "ok" else origin.source

    def _origin(self, root: Root) -> Standing | None:
        return self._standing(root.url, "origin") if root.state != "offline" and is_url(root.url) else None

    def _further_of(self, root: Root) -> list[Standing]:
        found = []
        for beat in self._further(root.name):
            if beat.url != root.url:
                standing = self._standing(beat.url, "further")
                standing.announced_load = beat.load
                found.append(standing)
        return found

    def _standing(self, url: str, kind: Kind) -> Standing:
        standing = self._standings.get((url, kind))
        if standing is None:
            standing = self._standings[url, kind] = self._make(url, kind)
        return standing

    def _make(self, url: str, kind: Kind) -> Standing:
        assert self._session is not None
        settings = self._settings
        source = HttpSource(
            url,
            self._session,
            token=settings.token,
            # what lies between would be fetched there first, or not be there
            gap_bytes=settings.gap_bytes if kind == "origin" else 0,
            requests=settings.upstream_requests,
            timeout_s=settings.upstream_timeout_s,
            stats=PartStats(self.stats),
            only_if_cached=kind == "further" and self._only_if_cached,
        )
        return Standing(source, kind, settings.upstream_requests, self.choices)

    @property
    def silent_s(self) -> float | None:
        """Seconds since anything was heard of those that are asked now; None if nobody is, or ever was."""
        heard_at = max((one.source.heard_at for one in self._standings.values()), default=-math.inf)
        if not self.stats.in_flight or heard_at == -math.inf:
            return None
        return max(0.0, asyncio.get_running_loop().time() - heard_at)

    # -- what is known of them -------------------------------------------------------------------

    def report(self, root: Root) -> list[SourceReport]:
        """Return what is known of the sources of a root, its publisher first."""
        standings = [self._standing(root.url, "origin")] if is_url(root.url) else []
        reports = [_report(standing) for standing in (*standings, *self._further_of(root))]
        if standings and root.state == "offline":
            reports[0] = replace(reports[0], state="down")
        return reports

    async def run(self) -> None:
        """Probe those there is a choice of, and those that are online, until cancelled; forget the others."""
        while True:
            due = {standing for standing in self._choosable() if _is_due(standing)}
            due |= {standing for standing in self._online() if _is_cold(standing)}
            async with asyncio.TaskGroup() as group:
                for standing in due:
                    group.create_task(_probe(standing))
            self._forget_unnamed()
            await asyncio.sleep(TICK_S)

    def _choosable(self) -> set[Standing]:
        """Return the sources of the roots that have several."""
        found: set[Standing] = set()
        for root in self._catalogue.roots.values():
            further = self._further_of(root)
            origin = self._origin(root) if further else None
            if len(further) + (origin is not None) > 1:
                found.update(further if origin is None else (origin, *further))
        return found

    def _online(self) -> Iterator[Standing]:
        """Yield the publishers that are there."""
        for root in self._catalogue.roots.values():
            if root.state == "online" and (origin := self._origin(root)) is not None:
                yield origin

    def _forget_unnamed(self) -> None:
        now = asyncio.get_running_loop().time()
        self._named_at |= dict.fromkeys(self._named(), now)
        for key in [key for key, at in self._named_at.items() if now - at > KEPT_S]:
            del self._named_at[key]
            self._standings.pop(key, None)

    def _named(self) -> Iterator[tuple[str, Kind]]:
        for root in self._catalogue.roots.values():
            yield root.url, "origin"
            for beat in self._further(root.name):
                yield beat.url, "further"


def _is_due(standing: Standing) -> bool:
    now = asyncio.get_running_loop().time()
    if standing.probed_at == float("-inf"):
        return True
    pause_s = PROBE_S if standing.state == "ok" else BAD_PROBE_S
    return now - standing.used_at < USED_S and now - standing.probed_at > pause_s


def _is_cold(standing: Standing) -> bool:
    now = asyncio.get_running_loop().time()
    return now - max(standing.probed_at, standing.source.heard_at) > WARM_S


async def _probe(standing: Standing) -> None:
    for _ in range(FIRST_PROBES if standing.round_trip_s is None else 1):
        if not await standing.probe():
            return


def _report(standing: Standing) -> SourceReport:
    stats, round_trip_s, left_s = standing.source.stats, standing.round_trip_s, standing.left_s
    return SourceReport(
        standing.source.name,
        standing.kind,
        standing.state,
        None if round_trip_s is None else round(1000 * round_trip_s, 3),
        round(standing.load, 3),
        stats.requests,
        stats.bytes,
        stats.rejected,
        standing.hedged,
        None if left_s is None else time.time() + left_s,
    )
