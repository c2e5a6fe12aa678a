"""The publisher as a service: its parts, in the order in which they start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict
from os import cpu_count
from pathlib import Path
from typing import Any

from caterva2.bus.announcer import OURS, WAITING, Announcer
from caterva2.bus.connection import Bus
from caterva2.bus.locate import locate, meeting_place
from caterva2.cache.finished import FinishedCache, cache_in
from caterva2.config import PublisherSettings
from caterva2.errors import ConfigError, InvalidPath
from caterva2.http.app import build_app
from caterva2.http.catalogue import catalogue_router
from caterva2.http.data import data_routes
from caterva2.http.events import EventStreams
from caterva2.http.metrics import Metrics
from caterva2.http.server import Server, announced_url
from caterva2.http.service import Service
from caterva2.model.extents import digest
from caterva2.model.path import DatasetPath, check_root
from caterva2.publisher.directory import RootDirectory
from caterva2.publisher.mirrors import MirrorRoot
from caterva2.publisher.originals import OriginalsByRoot, PublishedOriginals
from caterva2.publisher.resets import Resets, name_all_anew
from caterva2.publisher.store import PublisherStore
from caterva2.publisher.versions import VersionStats
from caterva2.publisher.watch import RootWatcher, WatchStats
from caterva2.source.local import LocalSource
from caterva2.source.slices import Reader
from caterva2.state import StateLock

__all__ = ["PublisherService", "directory_of"]


class PublisherService(Service):
    """Watches directories, announces what is in them, and serves it; the same for caches of subscribers.

    An async context manager: it serves once it is entered, what it knows from last time at once, what is new
    as it is found, whether the broker is there or not. It never writes below the directories.

    Parameters
    ----------
    settings : PublisherSettings
    roots : mapping of str to Path
        Directories by the name of their root. They may overlap. For one that is the cache of a subscriber, or
        its state directory, the root is published that the cache has under that name.
    reset : bool
        Have readers take what is announced as it is, though they have seen later generations.

    Raises
    ------
    ConfigError
        If there is no root, one cannot be named so, or its directory is missing; on entering: if the state
        directory is unusable, or a cache has no such root.
    CannotListen
        On entering: the address is in use.
    StateInUse
        On entering: another process owns the state directory, or that of a cache.
    """

    name = "publisher"

    def __init__(
        self, settings: PublisherSettings, roots: Mapping[str, Path], *, reset: bool = False
    ) -> None:
        super().__init__(settings)
        self.settings = settings
        self.roots = {name: directory_of(name, directory) for name, directory in roots.items()}
        if not self.roots:
            raise ConfigError("there is nothing to publish: give at least one NAME=DIR")
        self.reset = reset
        self.watchers: dict[str, RootWatcher] = {}
        self.mirrors: dict[str, MirrorRoot] = {}
        self._announcers: dict[str, Announcer] = {}
        self.version_stats = VersionStats()
        self.watch_stats = WatchStats()

    @property
    def scanned(self) -> bool:
        """Whether all that was in the directories at the start is announced, or cannot be."""
        return all(root.scanned for root in self._published.values())

    @property
    def _published(self) -> Mapping[str, RootWatcher | MirrorRoot]:
        return self.watchers | self.mirrors

    @property
    def url(self) -> str:
        """The address for others."""
        return self.settings.url or announced_url(self.address, meeting_place(self.settings))

    async def settled(self) -> None:
        """Return once what decodes is imported."""
        await self.reader.ready()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        stack.enter_context(StateLock(settings.state))
        store = PublisherStore(settings.state / "publisher.sqlite")
        stack.callback(store.close)
        executor = stack.enter_context(ThreadPoolExecutor(2 * (cpu_count() or 1), "caterva2"))
        # Looking at directories, however large, keeps no request waiting
        scanning = stack.enter_context(ThreadPoolExecutor(1, "caterva2-scan"))
        caches = {root: place for root, directory in self.roots.items() if (place := cache_in(directory))}
        self._add_watchers(store, scanning, [name for name in self.roots if name not in caches])
        self._add_mirrors(stack, store, caches)

        directories = dict.fromkeys(self.watchers, PublishedOriginals(self.watchers, store))
        self.source = LocalSource(OriginalsByRoot({**directories, **self.mirrors}), executor)
        stack.push_async_callback(self.source.close)
        decoding = stack.enter_context(ThreadPoolExecutor(cpu_count() or 1, "caterva2-decode"))
        self.reader = Reader(self.source, executor, decoding, limit_bytes=settings.answer_limit_bytes)
        self.bus = await stack.enter_async_context(Bus(locate(settings)))
        streams = EventStreams(self.catalogue)
        metrics = self._metrics()
        app = build_app(
            title="Caterva2 publisher",
            routes=data_routes(self),
            routers=[catalogue_router(self.catalogue, streams)],
            metrics=metrics,
            token=settings.token,
            health=self._health,
        )
        server = await stack.enter_async_context(Server(app, settings.listen, streams.stop))
        metrics.add_server(server, streams)
        stack.enter_context(metrics.watch_loop(server, streams))
        self.address = server.address
        for name, root in self._published.items():
            self.catalogue.set_root(name, url=self.url, instance=store.instance)
            self._spawn(stack, root.run())
        resets = Resets(store, self.catalogue, self._published if self.reset else ())
        for name in self._published:
            self._spawn(stack, self._announce(name, store.instance, resets))
        self._spawn(stack, server.wait())
        self.reader.get_ready()

    def _add_root(self, store: PublisherStore, name: str) -> None:
        self.catalogue.set_root(name, instance=store.instance)
        self.catalogue.reset(name, store.reset_at(name))

    def _add_watchers(
        self, store: PublisherStore, executor: ThreadPoolExecutor, names: Iterable[str]
    ) -> None:
        for name in names:
            self._add_root(store, name)
            if self.reset:
                name_all_anew(store, name)
            self.watchers[name] = RootWatcher(
                RootDirectory(name, str(self.roots[name]), store, self.version_stats),
                self.catalogue,
                store,
                executor,
                settle_s=self.settings.settle_s,
                max_settle_s=self.settings.max_settle_s,
                rescan_s=self.settings.rescan_s,
                stats=self.watch_stats,
            )

    def _add_mirrors(self, stack: AsyncExitStack, store: PublisherStore, caches: Mapping[str, Path]) -> None:
        """Add the roots that are in caches; of several out of one cache, that is opened once."""
        if not caches:
            return
        checking = stack.enter_context(ThreadPoolExecutor(cpu_count() or 1, "caterva2-check"))
        for place in sorted(set(caches.values())):
            scratch = self.settings.state / "caches" / digest(bytes(place)).hex()
            cache = stack.enter_context(FinishedCache(place, scratch))
            has = cache.newest()
            for name in sorted(root for root, where in caches.items() if where == place):
                if name not in has:
                    there = ", ".join(sorted(has)) or "none"
                    raise ConfigError(f"cannot publish {name!r}: the cache {place} has other roots ({there})")
                self._add_root(store, name)
                self.mirrors[name] = MirrorRoot(
                    name, cache, has[name], catalogue=self.catalogue, store=store, executor=checking
                )

    async def _announce(self, root: str, instance: str, resets: Resets) -> None:
        """Announce a root while its directory is there."""
        watcher = self._published[root]
        while True:
            await watcher.online.wait()
            announcer = Announcer(
                self.bus,
                self.catalogue,
                {root: ""},
                instance=instance,
                url=self.url,
                on_behind=self._name_later if root in self.watchers else None,
                reset_of=resets.at,
                is_coming=lambda _, name: watcher.is_coming(name),
            )
            self._announcers[root] = announcer
            announcing = asyncio.create_task(announcer.run())
            lost = asyncio.create_task(watcher.offline.wait())
            try:
                await asyncio.wait([announcing, lost], return_when=asyncio.FIRST_COMPLETED)
                if announcing.done():
                    announcing.result()
            finally:
                lost.cancel()
                announcing.cancel()
                await asyncio.gather(announcing, lost, return_exceptions=True)

    def _name_later(self, path: DatasetPath, generation: int) -> None:
        """Name a version of a file anew, as others know a later one; those of mirrors keep their names."""
        self.watchers[path.root].raise_generation(path.name, generation)

    def _metrics(self) -> Metrics:
        metrics = Metrics("publisher")
        metrics.add_catalogue(self.catalogue)
        metrics.add_stats("source", self.source.stats)
        metrics.add_budget(self.reader.budget)
        metrics.add_stats("versions", self.version_stats)
        metrics.add_stats("watch", self.watch_stats)
        return metrics

    # -- what the routes ask (`caterva2.http.data.DataService`) -------------------------------------

    here: None = None  # it asks nobody

    def local_state(self, path: DatasetPath) -> dict[str, Any]:  # noqa: ARG002 - of a protocol
        """Return what ``/api/info`` says of a dataset beyond what all services do: nothing."""
        return {}

    def _health(self) -> dict[str, Any]:
        states = {root.name: root.state for root in self.catalogue.roots.values()}
        claims = {root: announcer.claims[root] for root, announcer in self._announcers.items()}
        refused = {root: claim for root, claim in claims.items() if claim not in (OURS, WAITING)}
        return {
            "status": "degraded" if refused or "offline" in states.values() else "ok",
            "broker": "connected" if self.bus.connected else "unreachable",
            "problem": self.bus.problem,
            "roots": states,
            "refused": refused,
            "mirrors": {name: asdict(mirror.counts) for name, mirror in self.mirrors.items()},
        }


def directory_of(root: str, directory: Path) -> Path:
    """Return the directory of a root, absolute.

    Raises
    ------
    ConfigError
        If the root cannot have that name, or there is no such directory.
    """
    try:
        check_root(root)
    except InvalidPath as error:
        raise ConfigError(str(error)) from error
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        raise ConfigError(f"cannot publish {root!r}: {directory} {what}")
    return directory.absolute()
