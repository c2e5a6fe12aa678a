"""Announcing roots: the bus is made equal to a catalogue, and kept so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from caterva2.bus.announcement import OURS, WAITING, Announcement, Behind
from caterva2.bus.buckets import ALIVE, WITHDRAW_S, Bucket
from caterva2.bus.claims import ResetOf, carried_on
from caterva2.bus.connection import Bus
from caterva2.bus.keys import root_key
from caterva2.bus.records import Claim
from caterva2.errors import BusError
from caterva2.model.catalogue import Catalogue

__all__ = ["OURS", "WAITING", "Announcer", "Behind"]


class Announcer:
    """Announces roots.

    What the catalogue does not have when `run` is called is deleted from the bus, unless it is coming.

    Parameters
    ----------
    bus : Bus
    catalogue : Catalogue
        What is announced.
    roots : mapping of str to str
        Titles by root.
    instance : str
        Names the state directory of who announces; the same after a restart.
    url : str
        Where others reach who announces.
    on_behind : callable, optional
        Called with a dataset and a generation: the bus has a version of that generation that is not ours, so
        readers would ignore ours. It is not announced until its generation is greater. It happens when the
        state was lost while the clock went back, or another publisher had the root.
    reset_of : callable, optional
        Says which reset to claim a root with; by default the one that is there is carried on.
    is_coming : callable, optional
        Says of a dataset, by root and name, that what the catalogue has of it (or that it has none) may be
        out of date, and what is current is going to come: a later version on the bus stays meanwhile.
    claim_of : callable, optional
        Returns what to claim a root with, where that changes while it runs; by default what is given above.

    Attributes
    ----------
    claims : dict of str to str
        By root: `WAITING`, `OURS`, or the reason why the root was refused.
    """

    def __init__(
        self,
        bus: Bus,
        catalogue: Catalogue,
        roots: Mapping[str, str],
        *,
        instance: str,
        url: str,
        on_behind: Behind | None = None,
        reset_of: ResetOf = carried_on,
        is_coming: Callable[[str, str], bool] = lambda _root, _name: False,
        claim_of: Callable[[str], Claim] | None = None,
    ) -> None:
        self._bus = bus
        self.claims = dict.fromkeys(roots, WAITING)
        own = {root: Claim(instance, url, title) for root, title in roots.items()}
        self._roots = [
            Announcement(
                bus,
                catalogue,
                root,
                claim_of or own.__getitem__,
                claims=self.claims,
                on_behind=on_behind,
                reset_of=reset_of,
                is_coming=is_coming,
            )
            for root in roots
        ]

    @property
    def in_sync(self) -> bool:
        """Whether all roots are ours and the bus equals the catalogue."""
        return all(root.in_sync for root in self._roots)

    def beat_soon(self) -> None:
        """Send a heartbeat out of turn: what it says is another by now."""
        for root in self._roots:
            root.beat_soon()

    async def run(self) -> None:
        """Announce until cancelled; then the roots are withdrawn, so that everybody knows at once."""
        try:
            async with asyncio.TaskGroup() as group:
                for root in self._roots:
                    group.create_task(root.run())
        finally:
            await self._withdraw()

    async def _withdraw(self) -> None:
        held = [root for root, claim in self.claims.items() if claim == OURS]
        if not held or not self._bus.connected:
            return
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_S), self._bus.session() as client:
                alive = Bucket(client, ALIVE)
                await asyncio.gather(*(alive.delete(root_key(root)) for root in held))
