"""A tier: the roots of one group's broker are announced at another's, as this subscriber serves them.

So a subscriber of one group is a publisher in another. What it announces is its view of the roots, with all
versions as they are: whoever reads there has the same etags and digests, and what is missing here is fetched
from above while it is read.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

import structlog

from caterva2.bus.announcer import OURS, WAITING, Announcer
from caterva2.bus.connection import Bus
from caterva2.bus.locate import locate_below
from caterva2.bus.records import Claim
from caterva2.bus.removal import remove_root
from caterva2.config import Address, SubscriberSettings
from caterva2.http.server import announced_url
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Root
from caterva2.subscriber.republish import ALL, is_chosen

__all__ = ["Tier"]

LOOK_S = 0.1
"""How often it is looked at what is to be announced, in seconds."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Republished:
    """A root that is announced, or waits for that."""

    root: Root
    announcer: Announcer
    task: asyncio.Task[None]
    told_fresh: bool = False


class Tier:
    """Announces the roots of a subscriber at the broker of another group; an async context manager.

    A root is announced from when it was known completely for the first time: what is not in the catalogue
    yet is not deleted there. Who it is from, and what it came through, is announced with it, so that it never
    goes round in circles.

    Parameters
    ----------
    catalogue : Catalogue
        What the subscriber knows.
    settings : SubscriberSettings
        Those with a `republish_to`.
    instance : str
        Names the subscriber's state directory.
    address : Address
        Where it listens.
    """

    def __init__(
        self, catalogue: Catalogue, settings: SubscriberSettings, instance: str, address: Address
    ) -> None:
        broker = settings.republish_to
        assert broker is not None
        self._catalogue = catalogue
        self._names = settings.republish or (ALL,)
        self._instance = instance
        self.url = settings.republish_url or settings.url or announced_url(address, broker)
        self._bus = Bus(locate_below(settings))
        self._stack = AsyncExitStack()
        self._roots: dict[str, _Republished] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._bus)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Announce until cancelled; then the roots are withdrawn."""
        try:
            while True:
                self._look()
                await asyncio.sleep(LOOK_S)
        finally:
            tasks = [*(root.task for root in self._roots.values()), *self._leaving.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self) -> None:
        """Make what is announced what is to be."""
        for name, leaving in list(self._leaving.items()):
            if leaving.done():
                leaving.result()
                del self._leaving[name]
        for name, republished in list(self._roots.items()):
            if republished.task.done():
                republished.task.result()
            root = self._catalogue.roots.get(name)
            if root is None or root is not republished.root:
                del self._roots[name]
                self._leaving[name] = asyncio.create_task(self._leave(name, republished))
            elif root.fresh != republished.told_fresh:
                republished.told_fresh = root.fresh
                republished.announcer.beat_soon()
        for root in self._catalogue.roots.values():
            if self._is_known(root) and root.name not in self._roots and root.name not in self._leaving:
                self._roots[root.name] = self._announce(root)

    def _is_known(self, root: Root) -> bool:
        return is_chosen(root, self._names) and bool(root.instance)

    def _announce(self, root: Root) -> _Republished:
        announcer = Announcer(
            self._bus,
            self._catalogue,
            {root.name: root.title},
            instance=self._instance,
            url=self.url,
            # cut off from above, others may know what is later, and this does not take it back
            is_coming=lambda _root, _name: not root.fresh,
            claim_of=lambda _: self._claim_of(root),
        )
        return _Republished(root, announcer, asyncio.create_task(announcer.run()))

    def _claim_of(self, root: Root) -> Claim:
        via = (*root.via, self._instance)
        return Claim(self._instance, self.url, root.title, origin=root.origin or root.instance, via=via)

    async def _leave(self, name: str, republished: _Republished) -> None:
        """Remove a root that is not there any more where it comes from."""
        log.info("root is gone above, removing it below", root=name)
        republished.task.cancel()
        await asyncio.gather(republished.task, return_exceptions=True)
        await remove_root(self._bus, name, self._claim_of(republished.root))

    def health(self) -> dict[str, Any]:
        """Return what ``/health`` says of it."""
        claims = {name: root.announcer.claims[name] for name, root in self._roots.items()}
        return {
            "republish_to": "connected" if self._bus.connected else "unreachable",
            "republished": sorted(name for name, claim in claims.items() if claim == OURS),
            "refused": {name: claim for name, claim in claims.items() if claim not in (OURS, WAITING)},
        }
