"""Taking a root off the bus, with all that was said of it: nobody is going to announce it here again."""

from __future__ import annotations

import asyncio

import structlog
from nats.errors import Error as NatsError

from caterva2.bus.announcer import Announcer
from caterva2.bus.buckets import ROOTS, Bucket
from caterva2.bus.claims import ClaimLost, check_claim
from caterva2.bus.connection import Bus, checkpoint
from caterva2.bus.keys import root_key
from caterva2.bus.records import Claim
from caterva2.errors import BusError
from caterva2.model.catalogue import Catalogue

__all__ = ["remove_root"]

LOOK_S = 0.05
"""How often it is looked whether all is deleted, in seconds."""

AGAIN_S = 1.0
"""Pause between attempts, in seconds."""

log = structlog.get_logger(__name__)


async def remove_root(bus: Bus, root: str, claim: Claim) -> None:
    """Delete a root's datasets, its heartbeat and its claim, if that is ours; return once it is done.

    Parameters
    ----------
    bus : Bus
        One that is lost is waited for.
    root : str
    claim : Claim
        Ours.
    """
    while True:
        checkpoint()
        try:
            async with bus.session() as client:
                await check_claim(client, root, claim)
            await _empty(bus, root, claim)
            async with bus.session() as client:
                await check_claim(client, root, claim)
                await Bucket(client, ROOTS).delete(root_key(root))
        except ClaimLost as error:
            log.debug("nothing to remove", root=root, reason=str(error))
            return
        except (BusError, NatsError, TimeoutError, OSError) as error:
            log.debug("removing interrupted", root=root, reason=str(error))
            await asyncio.sleep(AGAIN_S)
        else:
            log.info("root removed", root=root)
            return


async def _empty(bus: Bus, root: str, claim: Claim) -> None:
    """Announce that there is nothing in a root, until that is so."""
    nothing = Catalogue()
    nothing.set_root(root)
    nothing.confirm(root)
    announcer = Announcer(
        bus,
        nothing,
        {root: claim.title},
        instance=claim.instance,
        url=claim.url,
        claim_of=lambda _: claim,
    )
    announcing = asyncio.create_task(announcer.run())
    try:
        while not announcer.in_sync:  # noqa: ASYNC110 - of several parts, looked at as one
            await asyncio.sleep(LOOK_S)
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
