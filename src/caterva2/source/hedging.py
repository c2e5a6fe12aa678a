"""One answer from several sources: the first complete and right one counts.

They are asked in order. The next one is asked when one fails, and as well when all that were asked are silent
for longer than they usually are: few of those for mere slowness (`Budget`), any that stall.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from caterva2.errors import Caterva2Error, Changed, NotFound
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.source.standing import SourcesStats, Standing

__all__ = ["AllFailed", "Budget", "first_answer"]

SHARE = 0.05
BURST = 10.0
"""For mere slowness so large a share of answers may be asked of a second source, and so many at once."""


LOOK_S = 0.1
"""How often it is looked whether what waits for its turn waits in vain, in seconds."""


EXCUSED_S = 0.5
MOST_EXCUSED_S = 10.0
"""A source that is fetching is excused for so long, before it is asked again, and in all, in seconds."""


class Budget:
    """How many more requests may be made for mere slowness."""

    def __init__(self) -> None:
        self._left = BURST

    def earn(self) -> None:
        """Note a request that would be made anyway."""
        self._left = min(self._left + SHARE, BURST)

    def take(self) -> bool:
        """Return whether one more may be made, and count it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class AllFailed(Exception):
    """No source gave an answer.

    Attributes
    ----------
    errors : list of (Standing, Caterva2Error)
        Why not, in the order in which they failed.
    """

    def __init__(self, errors: list[tuple[Standing, Caterva2Error]]) -> None:
        super().__init__("no source gave an answer")
        self.errors = errors


class _Attempt:
    """One source that was asked, and when it was last heard from."""

    def __init__(self, standing: Standing, head: Head, extents: Sequence[Extent]) -> None:
        self.standing = standing
        self.patience_s = standing.patience_s
        self.hedged = False
        self.stall_s = standing.stall_s
        self.sent = False
        self._well = standing.state == "ok"
        self._heard_at = _now()
        self._longest_s = 0.0
        self._excused_until = float("-inf")
        self.task = asyncio.create_task(standing.source.read(head, extents, self._heard))

    def _heard(self) -> None:
        now = _now()
        if self.sent:
            self._longest_s = max(self._longest_s, now - self._heard_at)
        self.sent, self._heard_at = True, now

    @property
    def silent_since(self) -> float:
        """Loop time since which it is silent; for what waits for its turn, the source as a whole."""
        return self._heard_at if self.sent else max(self._heard_at, self.standing.source.heard_at)

    @property
    def slow_at(self) -> float:
        """Loop time from which another may be asked as well."""
        slow_at = self.silent_since + self.patience_s if self.sent else self.stalled_at
        return max(slow_at, self._excused_until)

    @property
    def stalled_at(self) -> float:
        """Loop time from which another is asked in any case: at once for what waits in vain for its turn."""
        in_vain = not self.sent and self._well and self.standing.state != "ok"
        return self._heard_at if in_vain else max(self.silent_since + self.stall_s, self._excused_until)

    async def excuse(self) -> None:
        """Have patience for a while if the source is fetching what it was asked for itself."""
        if _now() - self.silent_since < MOST_EXCUSED_S and await self.standing.is_at_work():
            self._excused_until = _now() + EXCUSED_S

    def ended(self) -> None:
        """Note how silent it was."""
        if self.sent:
            self.standing.was_silent(max(self._longest_s, _now() - self._heard_at))


async def first_answer(
    candidates: Sequence[Standing],
    head: Head,
    extents: Sequence[Extent],
    budget: Budget,
    stats: SourcesStats,
) -> list[bytes]:
    """Return the bytes of extents, from the first source that gives them right.

    Parameters
    ----------
    candidates : sequence of Standing
        In the order in which they are to be asked.
    head : Head
    extents : sequence of Extent
        Few enough for one request.
    budget : Budget
    stats : SourcesStats
        Is added to.

    Raises
    ------
    Changed, NotFound
        If the origin says so.
    AllFailed
    """
    race = _Race(candidates, head, extents, stats)
    budget.earn()
    try:
        while True:
            if not race.under_way:
                race.go_on()
            done = await race.wait(budget)
            if done is not None:
                return done
    finally:
        await race.close()


class _Race:
    """The sources that were asked for some extents, and those that may be."""

    def __init__(
        self, candidates: Sequence[Standing], head: Head, extents: Sequence[Extent], stats: SourcesStats
    ) -> None:
        self._waiting = deque(candidates)
        self._head = head
        self._extents = extents
        self._stats = stats
        self.under_way: dict[asyncio.Task[list[bytes]], _Attempt] = {}
        self.errors: list[tuple[Standing, Caterva2Error]] = []

    def go_on(self) -> None:
        """Ask the next source, as none is asked now."""
        if not self._waiting:
            raise AllFailed(self.errors)
        if self.errors:
            self._stats.failovers += 1
        self._start()

    def _start(self) -> None:
        attempt = _Attempt(self._waiting.popleft(), self._head, self._extents)
        self.under_way[attempt.task] = attempt

    async def wait(self, budget: Budget) -> list[bytes] | None:
        """Wait for an answer, and return it; None if none came and others may be asked now."""
        timeout_s = None
        if self._waiting:
            attempts = self.under_way.values()
            timeout_s = max(0.0, max(attempt.slow_at for attempt in attempts) - _now())
            if not all(attempt.sent for attempt in attempts):
                timeout_s = min(timeout_s, LOOK_S)
        done, _ = await asyncio.wait(self.under_way, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            attempt = self.under_way.pop(task)
            answer = self._judge(attempt)
            if answer is not None:
                self._leave_others()
                return answer
        if not done and self._all_slow():
            await asyncio.gather(*(attempt.excuse() for attempt in self.under_way.values()))
            if self._all_slow():
                self._hedge(budget)
        return None

    def _all_slow(self) -> bool:
        now = _now()
        return all(attempt.slow_at <= now and not task.done() for task, attempt in self.under_way.items())

    def _judge(self, attempt: _Attempt) -> list[bytes] | None:
        path, etag = str(self._head.path), self._head.etag
        try:
            answer = attempt.task.result()
        except Caterva2Error as error:
            if attempt.standing.kind == "origin" and isinstance(error, Changed | NotFound):
                raise
            attempt.standing.failed(error, path, etag)
            self.errors.append((attempt.standing, error))
            return None
        attempt.ended()
        attempt.standing.answered(path, etag)
        return answer

    def _hedge(self, budget: Budget) -> None:
        """Ask the next source as well, since those under way are silent; of mere slowness within a budget."""
        now, attempts = _now(), self.under_way.values()
        if any(attempt.stalled_at > now for attempt in attempts) and not budget.take():
            for attempt in attempts:
                attempt.patience_s = attempt.stall_s
            return
        for attempt in attempts:
            if not attempt.hedged:
                attempt.hedged = True
                attempt.standing.hedged += 1
        self._stats.hedges += 1
        self._start()

    def _leave_others(self) -> None:
        now = _now()
        for attempt in self.under_way.values():
            attempt.ended()
            if attempt.sent and attempt.slow_at <= now:
                attempt.standing.was_beaten(now - attempt.silent_since)

    async def close(self) -> None:
        """Cancel what is under way."""
        for task in self.under_way:
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
