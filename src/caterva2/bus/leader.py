"""Whether a bucket has somebody who takes what is written to it.

In a cluster a stream has a leader. While one is elected, some seconds after a server was lost, nothing can be
written, though those who read may notice nothing: then silence says nothing of who should write. A leader
that lost all others answers for some more seconds: two servers of three, lost at once, may go unnoticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nats.errors import Error as NatsError

from caterva2.bus.connection import Bus, checkpoint
from caterva2.errors import BusError

__all__ = ["Leader"]

LOOK_S = 0.25
"""Pause between two looks, in seconds."""

ANSWER_S = 0.75
"""A leader answers within this time, in seconds."""


class Leader:
    """Asks for the leader of a bucket while there is a reason to.

    Parameters
    ----------
    bus : Bus
    bucket : str
    doubted : callable
        Returns whether there is.

    Attributes
    ----------
    there : bool
        Whether it answered, when it was asked last.
    """

    def __init__(self, bus: Bus, bucket: str, doubted: Callable[[], bool]) -> None:
        self._bus = bus
        self._stream = f"KV_{bucket}"
        self._doubted = doubted
        self.there = True

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            checkpoint()
            await asyncio.sleep(LOOK_S)
            if not self.there or self._doubted():
                self.there = await self._answers()

    async def _answers(self) -> bool:
        try:
            async with self._bus.session() as client, asyncio.timeout(ANSWER_S):
                await client.jetstream(timeout=ANSWER_S).stream_info(self._stream)
        except (BusError, NatsError, TimeoutError, OSError):
            return False
        return True
