"""When a request that failed is worth sending again: soon, a few times, and never to wait in vain.

Worth it is what passes by itself: a service that is restarted, a connection that broke, a proxy or a service
that has too much to do and says so. A publisher that is offline is none of that: the subscriber has looked
for it already; and a service that was never reached is not being restarted.
"""

from __future__ import annotations

import random
import time

from caterva2.client.protocol import Reply
from caterva2.client.underway import UnderWay

__all__ = ["PAUSES_S", "Retries", "busy_s"]

PAUSES_S = (0.05, 0.1, 0.2, 0.4)
"""Longest pauses before a request is sent again, in seconds: so many times at most."""

SHORT_S = 1.0
"""A service that wants to be asked again within this time, in seconds, has only too much to do now."""

LONGEST_S = 5.0
"""Longest pause that a service that limits the rate of requests may ask for, in seconds."""

_TOO_MANY, _UNAVAILABLE = 429, 503


def busy_s(reply: Reply) -> float | None:
    """Return how long a service that has too much to do wants to be left alone, in seconds.

    Returns
    -------
    float or None
        None if the answer says anything else.
    """
    said = reply.headers.get("Retry-After", "0" if reply.status == _TOO_MANY else "")
    if not (said.isascii() and said.isdigit()):  # it may be a date: too far away, whatever it is
        return None
    most = {_TOO_MANY: LONGEST_S, _UNAVAILABLE: SHORT_S}.get(reply.status, -1.0)
    return float(said) if len(said) < 9 and float(said) <= most else None


class Retries:
    """The pauses of one request: growing, and each of another length, so that not all come back at once.

    Parameters
    ----------
    within_s : float
        How long to go on, in seconds, from now on.
    """

    __slots__ = ("_deadline", "_made")

    def __init__(self, within_s: float) -> None:
        self._deadline = time.monotonic() + within_s
        self._made = 0

    def next_s(self, least_s: float = 0.0) -> float | None:
        """Return the next pause, in seconds: at least so long; None if that is not to be waited for."""
        if self._made == len(PAUSES_S):
            return None
        pause_s = least_s + PAUSES_S[self._made] * random.uniform(0.5, 1.0)
        self._made += 1
        return pause_s if time.monotonic() + pause_s <= self._deadline else None

    def wait(self, under_way: UnderWay | None, least_s: float = 0.0) -> bool:
        """Make the next pause, and return whether to go on: not when it was stopped meanwhile.

        Parameters
        ----------
        under_way : UnderWay or None
            What may be stopped.
        least_s : float
            As for `next_s`.
        """
        pause_s = self.next_s(least_s)
        if pause_s is None:
            return False
        if under_way is not None:
            return not under_way.stopped.wait(pause_s)
        time.sleep(pause_s)
        return True
