"""A circuit breaker: tells a host that hangs from one that is slow, so that nobody waits for the former.

A host that sends nothing, whatever it was asked, may be working or may hang (stopped, swapping, cut off
without a reset). Something cheap is asked of it then, the *probe*: who does not answer that either hangs. All
that wait for it are told, and who comes later is refused until a probe is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from caterva2.errors import Unavailable

__all__ = ["Breaker"]

SILENCE_S = 0.5
"""A host that was asked something and has sent nothing for so long is probed."""

PROBE_S = 1.2
"""So long it has to answer a probe; with `SILENCE_S` this stays below two seconds."""

REFUSE_S = 0.5
"""After a probe that was not answered all are refused for so long, without another."""

log = logging.getLogger(__name__)


class Breaker:
    """Watches the requests to one host. Belongs to one event loop.

    Parameters
    ----------
    name : str
        Of the host, for messages.
    probe : callable
        Asks the host something that it answers at once; returns when there is any answer, raises `OSError` or
        `TimeoutError` if there is none. It is cancelled after `probe_s`.
    tripped : callable
        Is told each time the host is found to hang.
    silence_s, probe_s : float
        As `SILENCE_S` and `PROBE_S`.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[None]],
        tripped: Callable[[], None],
        *,
        silence_s: float = SILENCE_S,
        probe_s: float = PROBE_S,
    ) -> None:
        self._name = name
        self._probe = probe
        self._silence_s = silence_s
        self._probe_s = probe_s
        self._heard_at = float("-inf")  # loop time of the last sign of life
        self._failed_at: float | None = None  # loop time of the probe that failed; None while it is closed
        self._waiting: dict[object, Callable[[], None]] = {}
        self._probing: asyncio.Task[bool] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._tripped = tripped

    @property
    def heard_at(self) -> float:
        """Loop time of the last sign of life, or of the first request after a pause."""
        return self._heard_at

    @property
    def hangs(self) -> bool:
        """Whether the last probe was not answered, and nothing was heard since."""
        return self._failed_at is not None

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard_at = asyncio.get_running_loop().time()
        self._failed_at = None

    async def admit(self) -> None:
        """Let a request pass; while the host is taken to hang, only after a probe was answered.

        Raises
        ------
        Unavailable
            If the host hangs; in less than the time of a probe.
        """
        if self._failed_at is None:
            return
        now = asyncio.get_running_loop().time()
        if now - self._failed_at < REFUSE_S or not await self.answers():
            raise Unavailable(f"{self._name} does not answer, not even whether it is well", self._probe_s)

    @contextmanager
    def watching(self, give_up: Callable[[], None]) -> Iterator[None]:
        """Watch over a request while inside.

        Parameters
        ----------
        give_up : callable
            Ends the request; called if the host is found to hang.
        """
        if not self._waiting:
            self._start()
        key = object()
        self._waiting[key] = give_up
        try:
            yield
        finally:
            self._waiting.pop(key, None)
            if not self._waiting and self._watch is not None:
                self._watch.cancel()
                self._watch = None

    def _start(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._watch = asyncio.create_task(self._watch_silence())

    async def _watch_silence(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            silent_s = now() - self._heard_at
            if silent_s < self._silence_s:
                await asyncio.sleep(self._silence_s - silent_s)
            elif not await self.answers() and now() - self._heard_at >= self._silence_s:
                self._trip()
                return

    def _trip(self) -> None:
        self._tripped()
        log.warning("%s hangs: it has sent nothing and does not answer a probe", self._name)
        self._watch = None
        waiting, self._waiting = self._waiting, {}
        for give_up in waiting.values():
            give_up()

    async def answers(self) -> bool:
        """Probe the host, once for all who want to know; return whether it answered."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._ask())
        return await asyncio.shield(self._probing)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(self._probe_s):
                await self._probe()
        except (OSError, TimeoutError):
            self._failed_at = asyncio.get_running_loop().time()
            return False
        self.heard()
        return True
