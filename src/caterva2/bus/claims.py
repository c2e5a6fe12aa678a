"""To whom a root belongs: to the publisher that claimed it, until it is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from nats.aio.client import Client

from caterva2.bus.buckets import ALIVE, ALIVE_TTL_S, ROOTS, Bucket
from caterva2.bus.connection import checkpoint
from caterva2.bus.keys import root_key
from caterva2.bus.records import Claim, Heartbeat
from caterva2.errors import BusError, Corrupt

__all__ = ["ClaimLost", "check_claim", "take_claim"]

LOOK_S = 0.5
"""Pause between looks at a root that is another's, in seconds."""

SILENCE_S = ALIVE_TTL_S + 1.0
"""A publisher is gone when its heartbeat was missing for this long, while we were looking, in seconds. The
missing heartbeat alone says little: the bus may have lost it in a restart."""


class ClaimLost(BusError):
    """A root that was ours belongs to another by now."""


async def take_claim(client: Client, root: str, mine: Claim, on_refused: Callable[[str], None]) -> None:
    """Claim a root; return once it is ours.

    It is ours at once if nobody has it, or if it was ours before. A root of another publisher is taken over
    when that one is gone; until then this waits. All writes are compare-and-swap, so one of several wins.

    Parameters
    ----------
    client : Client
    root : str
    mine : Claim
    on_refused : callable
        Called, each time it was looked at, with a message that names the owner while it lives.

    Raises
    ------
    BusError
        If the bus does not answer.
    """
    roots, alive = Bucket(client, ROOTS), Bucket(client, ALIVE)
    key, value = root_key(root), mine.encode()
    silent_since: float | None = None
    while True:
        checkpoint()
        held = await roots.get(key)
        owner = _parse(held.value)
        if owner is None or owner.instance == mine.instance:
            if held.value == value or await roots.replace(key, value, held.revision):
                return
            continue
        now = time.monotonic()
        if _is_of((await alive.get(key)).value, owner):
            silent_since = None
            on_refused(f"root {root!r} belongs to another publisher, at {owner.url}")
        elif silent_since is None:
            silent_since = now
        elif now - silent_since > SILENCE_S:
            if await roots.replace(key, value, held.revision):
                return
            silent_since = None
        await asyncio.sleep(LOOK_S)


async def check_claim(client: Client, root: str, mine: Claim) -> None:
    """Return if a root is ours still.

    Raises
    ------
    ClaimLost
        If it belongs to another, or its claim was deleted.
    BusError
        If the bus does not answer.
    """
    owner = _parse((await Bucket(client, ROOTS).get(root_key(root))).value)
    if owner is None:
        raise ClaimLost(f"the claim of root {root!r} is gone")
    if owner.instance != mine.instance:
        raise ClaimLost(f"root {root!r} was taken over by the publisher at {owner.url}")


def _parse(value: bytes | None) -> Claim | None:
    if value is None:
        return None
    try:
        return Claim.decode(value)
    except Corrupt:
        return None  # nobody's


def _is_of(value: bytes | None, owner: Claim) -> bool:
    if value is None:
        return False
    try:
        return Heartbeat.decode(value).instance == owner.instance
    except Corrupt:
        return False
