"""The subscriber as a service: its parts, in the order in which they start."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from os import cpu_count
from typing import Any

import structlog

from caterva2.bus.catalogue import CatalogueView
from caterva2.bus.connection import Bus
from caterva2.bus.locate import locate, meeting_place
from caterva2.bus.records import SourceBeat
from caterva2.bus.snapshot import ask_snapshot, take_snapshot
from caterva2.bus.sources import SourceAnnouncer, SourcesView
from caterva2.cache.cached import CachedSource
from caterva2.cache.earlier import CONTENTS_BYTES
from caterva2.cache.eviction import FOLLOWED, ORDINARY, PINNED
from caterva2.cache.here import Here
from caterva2.cache.manifests import MANIFEST_BYTES
from caterva2.cache.pool import MAX_OPEN
from caterva2.cache.slices import KEPT_BYTES
from caterva2.config import SubscriberSettings
from caterva2.errors import Corrupt
from caterva2.http.app import build_app
from caterva2.http.catalogue import catalogue_router
from caterva2.http.data import data_routes
from caterva2.http.events import EventStreams
from caterva2.http.load import Load
from caterva2.http.metrics import Metrics
from caterva2.http.server import Server, announced_url
from caterva2.http.service import Service
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.source.slices import Reader
from caterva2.state import StateLock
from caterva2.subscriber.cache_routes import cache_router
from caterva2.subscriber.deletions import drop_deleted
from caterva2.subscriber.follow import Follower
from caterva2.subscriber.origins import Origins
from caterva2.subscriber.pins import Pins
from caterva2.subscriber.republish import Republished
from caterva2.subscriber.routes import subscriber_router
from caterva2.subscriber.source_routes import sources_router
from caterva2.subscriber.store import SubscriberStore
from caterva2.subscriber.tier import Tier

__all__ = ["SubscriberService"]

ROOTS_WRITTEN_S = 10.0
"""How often it is written when roots were last confirmed, in seconds: the error of an age after a crash."""

ROOTS_LOOKED_AT_S = 1.0
"""How soon it is written that a root was confirmed for the first time, in seconds."""

log = structlog.get_logger(__name__)


class SubscriberService(Service):
    """Follows the catalogue of a broker and serves every root from a cache that fills itself.

    An async context manager: it serves once it is entered, with what it knows from last time, whether the
    broker and the publishers are there or not.

    Parameters
    ----------
    settings : SubscriberSettings

    Raises
    ------
    StateInUse, ConfigError, CannotListen
        On entering: another process owns the state directory, it cannot be used, what is to be followed is no
        pattern, or the address is taken.
    """

    name = "subscriber"

    def __init__(self, settings: SubscriberSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.tier: Tier | None = None

    async def settled(self) -> None:
        """Return once what decodes is imported."""
        await self.reader.ready()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        stack.enter_context(StateLock(settings.state))
        executor = stack.enter_context(ThreadPoolExecutor(2 * (cpu_count() or 1), "caterva2"))
        store = SubscriberStore(settings.state / "subscriber.sqlite")
        stack.callback(store.close)
        store.load(self.catalogue)
        pins = Pins(self.catalogue, store)
        await self._open_cache(stack, executor, pins)
        await self._follow(stack, store)
        await self._serve(stack, pins)
        self.reader.get_ready()
        await self._republish(stack, store.instance())

    async def _open_cache(self, stack: AsyncExitStack, executor: Executor, pins: Pins) -> None:
        settings = self.settings

        def rank(path: DatasetPath) -> int:
            # asked while evicting: not before something is served, after all parts are made
            if path in pins:
                return PINNED
            return FOLLOWED if self.follower.follows(path) else ORDINARY

        def further(root: str) -> list[SourceBeat]:
            return self.sources.of(root)  # asked while reading: not before all parts are made

        is_source = settings.is_further_source
        self.origins = await stack.enter_async_context(
            Origins(self.catalogue, settings, further, only_if_cached=is_source)
        )
        self.source = CachedSource(
            settings.state / "cache",
            current=self.catalogue.entry,
            origin=self.origins.source,
            quota_bytes=settings.quota_bytes,
            min_free_bytes=settings.min_free_bytes,
            durable=settings.durability == "power",
            rank=rank,
            executor=executor,
            shared=is_source or settings.republish_to is not None,
            maker=self.origins.maker if settings.slices == "auto" else lambda _path: None,
        )
        await self.source.open()
        stack.push_async_callback(self.source.close)
        self.reader = Reader(
            self.source,
            executor,
            stack.enter_context(ThreadPoolExecutor(cpu_count() or 1, "caterva2-decode")),
            limit_bytes=settings.answer_limit_bytes,
            decoded_bytes=settings.decoded_cache_bytes,
            made=self.source.slices,
        )

    async def _follow(self, stack: AsyncExitStack, store: SubscriberStore) -> None:
        settings, instance = self.settings, store.instance()
        self.bus = await stack.enter_async_context(Bus(locate(settings)))
        self.follower = Follower(self.catalogue, store, self.source)
        self.follower.begin(settings.follow, settings.follow_mode)
        self.view = CatalogueView(self.bus, self.catalogue, store.position(), instance=instance)
        store.keep(self.catalogue, lambda: self.view.position)
        self.sources = SourcesView(self.bus, instance)
        for part in (
            self._follow_bus(),
            self.sources.run(),
            self.origins.run(),
            self.follower.run(),
            _write_roots(self.catalogue, store),
            drop_deleted(self.catalogue, self.source),
        ):
            self._spawn(stack, part)

    async def _serve(self, stack: AsyncExitStack, pins: Pins) -> None:
        settings = self.settings
        metrics = self._metrics()
        streams = EventStreams(self.catalogue)
        app = build_app(
            title="Caterva2 subscriber",
            routes=data_routes(self),
            routers=[
                catalogue_router(self.catalogue, streams),
                subscriber_router(self.catalogue, self.follower, self.source),
                cache_router(self.catalogue, self.source, pins),
                sources_router(self.catalogue, self.origins),
            ],
            metrics=metrics,
            token=settings.token,
            other_token=None if settings.republish_to is None else settings.republish_token,
            health=self._health,
        )
        server = await stack.enter_async_context(Server(app, settings.listen, streams.stop))
        metrics.add_server(server, streams)
        stack.enter_context(metrics.watch_loop(server, streams))
        self.address = server.address
        self._spawn(stack, server.wait())

    async def _republish(self, stack: AsyncExitStack, instance: str) -> None:
        """Announce what is served here to others: of the own group, or of another."""
        settings = self.settings
        if settings.is_further_source:
            republished = Republished(
                self.catalogue,
                settings.republish or (),
                instance=instance,
                url=lambda: self.url,
                load=Load(),
            )
            self._spawn(stack, SourceAnnouncer(self.bus, republished.beat).run())
        if settings.republish_to is not None:
            self.tier = await stack.enter_async_context(
                Tier(self.catalogue, settings, instance, self.address)
            )
            self._spawn(stack, self.tier.run())

    async def _follow_bus(self) -> None:
        if not (self.catalogue.roots or self.settings.bus):
            body = await ask_snapshot(self.settings.broker, self.settings.token)
            if body is not None:
                await self._begin_with(body)
        await self.view.run()

    async def _begin_with(self, snapshot: bytes) -> None:
        try:
            self.view.data.go_on(await take_snapshot(snapshot, self.catalogue))
        except Corrupt as error:
            log.warning("the broker's snapshot cannot be used, reading the bus", reason=str(error))

    def _metrics(self) -> Metrics:
        metrics, cache = Metrics("subscriber"), self.source
        metrics.add_catalogue(self.catalogue)
        metrics.add_stats("cache", cache.stats)
        metrics.add_stats("upstream", self.origins.stats)
        metrics.add_stats("sources", self.origins.choices)
        metrics.add_stats("plan", cache.slices.stats)
        metrics.add_budget(self.reader.budget)
        metrics.add_decoded(self.reader.decoded)
        quota = self.settings.quota_bytes
        for name, what, value, limit in (
            ("used_bytes", "Bytes of mirrors", lambda: cache.stats.cached_bytes, quota),
            ("in_flight", "Heads, pages and extents being fetched", lambda: cache.in_flight, None),
            ("manifest_bytes", "Bytes of manifests in memory", lambda: cache.manifest_bytes, MANIFEST_BYTES),
            ("contents_bytes", "Digests of earlier versions", lambda: cache.contents_bytes, CONTENTS_BYTES),
            ("slices_bytes", "Bytes of slices in memory", lambda: cache.slices.kept_bytes, KEPT_BYTES),
            ("open_mirrors", "Mirrors that are open", lambda: cache.open_mirrors, MAX_OPEN),
        ):
            metrics.add_bound(f"cache_{name}", what, value, limit)
        return metrics

    # -- what the routes ask (`caterva2.http.data.DataService`) -------------------------------------

    @property
    def here(self) -> Here:
        """What is cached."""
        return self.source.here

    def local_state(self, path: DatasetPath) -> dict[str, Any]:
        """Return what ``/api/info`` says of a dataset beyond what its publisher does."""
        state = self.source.state(path)
        return {"cached_bytes": state.cached_bytes, "complete": state.complete}

    def _health(self) -> dict[str, Any]:
        return {
            "status": "degraded" if self.source.stats.degraded else "ok",
            "url": self.url,
            # who waits for an answer sees that it is being fetched, and does not ask somebody else as well
            "fetching_s": self.origins.silent_s,
            "broker": "connected" if self.bus.connected else "unreachable",
            "problem": self.bus.problem,
            "roots": {root.name: root.state for root in self.catalogue.roots.values()},
            "behind": self.follower.behind,
            "loops": sorted(self.view.loops),
            **({} if self.tier is None else self.tier.health()),
        }

    @property
    def url(self) -> str:
        """The address for others."""
        return self.settings.url or announced_url(self.address, meeting_place(self.settings))


async def _write_roots(catalogue: Catalogue, store: SubscriberStore) -> None:
    """Write when roots were last confirmed: now and then, and soon after one is for the first time."""
    known: set[str] = set()
    written_at = 0.0
    try:
        while True:
            fresh = {name for name, root in catalogue.roots.items() if root.fresh}
            if fresh != known or time.monotonic() - written_at > ROOTS_WRITTEN_S:
                store.write_roots()
                known, written_at = fresh, time.monotonic()
            await asyncio.sleep(ROOTS_LOOKED_AT_S)
    finally:
        store.write_roots()
