"""Further sources: subscribers that say that others may read through them, and what is heard of those."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import structlog
from nats.errors import Error as NatsError

from caterva2.bus.address import without_secrets
from caterva2.bus.buckets import ALIVE_TTL_S, BEAT_S, SOURCES, WITHDRAW_S, Bucket, Gone
from caterva2.bus.connection import Bus, checkpoint
from caterva2.bus.records import SourceBeat
from caterva2.bus.view import Change, View
from caterva2.errors import BusError, Corrupt

__all__ = ["SourceAnnouncer", "SourcesView"]

TICK_S = 0.25
"""How often clocks are looked at, in seconds."""

log = structlog.get_logger(__name__)


class SourceAnnouncer:
    """Announces a subscriber as a further source, under its instance.

    Parameters
    ----------
    bus : Bus
    beat : callable
        Returns what to announce now.
    """

    def __init__(self, bus: Bus, beat: Callable[[], SourceBeat]) -> None:
        self._bus = bus
        self._beat = beat

    async def run(self) -> None:
        """Announce until cancelled; then it is withdrawn, so that everybody knows at once."""
        try:
            while True:
                checkpoint()
                try:
                    async with self._bus.session() as client:
                        await self._put(Bucket(client, SOURCES))
                except (BusError, NatsError, TimeoutError, OSError) as error:
                    log.debug("announcing as a source interrupted", reason=str(error))
                await asyncio.sleep(random.uniform(0.05, 0.2))
        finally:
            await self._withdraw()

    async def _put(self, bucket: Bucket) -> None:
        while True:
            checkpoint()
            beat = self._beat()
            await bucket.put(beat.instance, beat.encode())
            await asyncio.sleep(BEAT_S)

    async def _withdraw(self) -> None:
        if not self._bus.connected:
            return
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_S), self._bus.session() as client:
                await Bucket(client, SOURCES).delete(self._beat().instance)


class SourcesView:
    """Knows the further sources that are alive. It is also the `Follower` of their bucket.

    While there is no connection to the bus, those that were there last are taken to be there still.

    Parameters
    ----------
    bus : Bus
    instance : str
        One's own: it is left out.
    """

    def __init__(self, bus: Bus, instance: str) -> None:
        self._bus = bus
        self._instance = instance
        self._heard: dict[str, tuple[SourceBeat, float]] = {}
        self._back_at = 0.0
        self._view = View(bus, SOURCES, ">", self)

    def of(self, root: str) -> list[SourceBeat]:
        """Return the sources of a root, as last heard."""
        return [beat for beat, _ in self._heard.values() if root in beat.roots]

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._view.run())
            while True:
                await asyncio.sleep(TICK_S)
                self._tick()

    def begin(self) -> None:
        """Do nothing: a store that was lost is no sign that the sources are gone."""

    def change(self, change: Change) -> None:
        """Take a heartbeat in, or a goodbye."""
        if change.value is None:
            if change.gone is Gone.DELETED:  # expiry has our own clock
                self._forget(change.key, "it said goodbye")
            return
        try:
            beat = SourceBeat.decode(change.value)
            if beat.instance != change.key:
                raise Corrupt(f"instance is {beat.instance!r}")
        except Corrupt as error:
            log.warning("skipped a malformed source on the bus", key=change.key, reason=str(error))
            return
        if beat.instance == self._instance:
            return
        if beat.instance not in self._heard:
            log.info("further source", source=without_secrets(beat.url))
        self._heard[beat.instance] = beat, time.monotonic()

    def done(self) -> None:
        """Do nothing: the clock says who is gone."""

    def _tick(self) -> None:
        now = time.monotonic()
        if not (self._bus.connected and self._view.synced):
            self._back_at = now
            return
        # sources were cut off too, perhaps: each has the time of a heartbeat since we are back
        silent = [key for key, (_, at) in self._heard.items() if now - max(at, self._back_at) > ALIVE_TTL_S]
        for instance in silent:
            self._forget(instance, "it was not heard from")

    def _forget(self, instance: str, why: str) -> None:
        found = self._heard.pop(instance, None)
        if found is not None:
            log.info("further source lost", source=without_secrets(found[0].url), why=why)
