"""To whom a root belongs: to the publisher that claimed it, until it is gone.

A *tier* claims a root at another bus than the one that it follows, for the publisher there: the root's
origin. It takes a root that nobody has, or that another tier of the same origin left; never that of another
origin, and never from where it comes itself. An origin that comes takes at once what a tier holds for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from nats.aio.client import Client

from caterva2.bus.buckets import ALIVE, ALIVE_TTL_S, ROOTS, Bucket, Stored
from caterva2.bus.connection import checkpoint
from caterva2.bus.keys import root_key
from caterva2.bus.records import Claim, Heartbeat
from caterva2.errors import BusError, Corrupt

__all__ = ["ClaimLost", "ResetOf", "carried_on", "check_claim", "refusal", "take_claim"]

LOOK_S = 0.5
"""Pause between looks at a root that is another's, in seconds."""

SILENCE_S = ALIVE_TTL_S + 1.0
"""A publisher is gone when no new heartbeat of it came for this long, while we were looking, in seconds. A
heartbeat that is missing says little: the bus may have lost it in a restart."""


ResetOf = Callable[[str, Claim | None], int]
"""Says which `Claim.reset` to claim a root with, given the claim that is there."""


def carried_on(_: str, there: Claim | None) -> int:
    """Return the reset of the claim that is there: the `ResetOf` of who resets nothing."""
    return 0 if there is None else there.reset


class ClaimLost(BusError):
    """A root that was ours belongs to another by now."""


async def take_claim(
    client: Client,
    root: str,
    claim_of: Callable[[str], Claim],
    on_refused: Callable[[str], None],
    reset_of: ResetOf,
) -> Claim:
    """Claim a root; return what was claimed once it is ours.

    It is ours at once if nobody has it, if it was ours before, or if a tier holds it for us. A root of
    another is taken over when that one is gone, unless that is refused; until then this waits. All writes
    are compare-and-swap, so one of several wins.

    Parameters
    ----------
    client : Client
    root : str
    claim_of : callable
        Returns, each time it was looked at, what to claim it with.
    on_refused : callable
        Called, each time it was looked at, with a message that names the owner while it lives.
    reset_of : callable
        Says, each time it is about to be claimed, which reset to claim it with.

    Returns
    -------
    Claim
        As of `claim_of`, with that reset.

    Raises
    ------
    BusError
        If the bus does not answer.
    """
    roots, alive = Bucket(client, ROOTS), Bucket(client, ALIVE)
    key = root_key(root)
    silent_since, last_beat = time.monotonic(), 0
    while True:
        checkpoint()
        mine = claim_of(root)
        held = await roots.get(key)
        owner = _parse(held.value)
        if owner is None or mine.instance in (owner.instance, owner.origin):
            if (taken := await _take(roots, root, mine, held, reset_of)) is not None:
                return taken
            continue
        if (reason := refusal(root, mine, owner)) is not None:
            on_refused(reason)
            await asyncio.sleep(LOOK_S)
            continue
        beat, now = await alive.get(key), time.monotonic()
        if _is_of(beat.value, owner) and beat.revision != last_beat:
            silent_since, last_beat = now, beat.revision
            another = "another tier" if mine.origin else "another publisher"
            on_refused(f"root {root!r} belongs to {another}, at {owner.url}, until that is gone")
        elif now - silent_since > SILENCE_S:
            if (taken := await _take(roots, root, mine, held, reset_of)) is not None:
                return taken
            silent_since = now
        await asyncio.sleep(LOOK_S)


def refusal(root: str, mine: Claim, owner: Claim) -> str | None:
    """Return why a root is not taken over from who has it, not even when that one is gone; None if it is.

    It is for tiers alone: a publisher takes over any.
    """
    if not mine.origin:
        return None
    if owner.instance == mine.origin or owner.instance in mine.via:
        return (
            f"root {root!r} comes from there, through {owner.url}: to announce a further source of it at the "
            "same broker, use --republish alone"
        )
    if (owner.origin or owner.instance) != mine.origin:
        return f"root {root!r} belongs to another publisher there, at {owner.url}"
    return None


async def _take(roots: Bucket, root: str, mine: Claim, held: Stored, reset_of: ResetOf) -> Claim | None:
    """Put a claim in place of another; return it, or None if somebody was faster."""
    claim = replace(mine, reset=reset_of(root, _parse(held.value)))
    value = claim.encode()
    if held.value == value or await roots.replace(root_key(root), value, held.revision):
        return claim
    return None


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
