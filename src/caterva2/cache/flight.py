"""Single flight: readers that want the same thing at the same time share one fetch of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from caterva2.errors import Caterva2Error, Unavailable

__all__ = ["Flights"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[K, V]):
    """One fetch of some keys, and how many wait for it."""

    def __init__(self, task: asyncio.Task[dict[K, V]]) -> None:
        self.task = task
        self.waiters = 0


class Flights(Generic[K, V]):
    """The fetches under way, by key.

    A fetch belongs to all who wait for it: it is cancelled when the last of them is, not before.
    """

    def __init__(self) -> None:
        self._by_key: dict[K, _Flight[K, V]] = {}
        self._tasks: set[asyncio.Task[dict[K, V]]] = set()
        self._closed = False

    @property
    def in_flight(self) -> int:
        """How many keys are being fetched."""
        return len(self._by_key)

    async def get(
        self,
        keys: Sequence[K],
        fetch: Callable[[list[K]], Awaitable[dict[K, V]]],
        concerns: Callable[[Exception, K], bool] = lambda _error, _key: True,
    ) -> dict[K, V]:
        """Return the values of some keys; those that nobody fetches yet are fetched in one call.

        Parameters
        ----------
        keys : sequence
        fetch : callable
            Takes the keys that nobody fetches yet, returns the values of all of them.
        concerns : callable
            Whether an error of a fetch that somebody else began is about a key. If it is about none of those
            wanted here, they are fetched once more.

        Raises
        ------
        Unavailable
            If `close` was called.
        Exception
            Whatever `fetch` raises.
        """
        got: dict[K, V] = {}
        missing = list(dict.fromkeys(keys))
        while missing:
            joined = {self._by_key[key] for key in missing if key in self._by_key}
            own = self._start([key for key in missing if key not in self._by_key], fetch)
            flights = joined | own
            for flight in flights:
                flight.waiters += 1
            try:
                await asyncio.wait([flight.task for flight in flights])
            finally:
                for flight in flights:
                    self._leave(flight)
            for flight in own:
                if flight.task.cancelled():
                    raise Unavailable("the cache is being closed")
                got |= flight.task.result()
            for flight in joined:
                if not flight.task.cancelled():
                    got |= _values_of(flight.task, missing, concerns)
            missing = [key for key in missing if key not in got]
        return {key: got[key] for key in keys}

    def _start(self, keys: list[K], fetch: Callable[[list[K]], Awaitable[dict[K, V]]]) -> set[_Flight[K, V]]:
        if not keys:
            return set()
        if self._closed:
            raise Unavailable("the cache is being closed")

        async def run() -> dict[K, V]:
            got = await fetch(keys)
            return {key: got[key] for key in keys}

        flight = _Flight(asyncio.create_task(run()))
        self._tasks.add(flight.task)
        self._by_key |= dict.fromkeys(keys, flight)
        flight.task.add_done_callback(lambda _task: self._land(flight, keys))
        return {flight}

    def _land(self, flight: _Flight[K, V], keys: list[K]) -> None:
        self._tasks.discard(flight.task)
        for key in keys:
            if self._by_key.get(key) is flight:
                del self._by_key[key]
        if not flight.task.cancelled():
            flight.task.exception()  # whoever waited has seen it; if nobody did, nobody needs to

    def _leave(self, flight: _Flight[K, V]) -> None:
        flight.waiters -= 1
        if not flight.waiters and not flight.task.done():
            flight.task.cancel()
            # nobody may join a fetch that is being cancelled
            for key in [key for key, other in self._by_key.items() if other is flight]:
                del self._by_key[key]

    async def close(self) -> None:
        """Cancel all fetches and wait until they have ended."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _values_of(
    task: asyncio.Task[dict[K, V]], wanted: Sequence[K], concerns: Callable[[Exception, K], bool]
) -> dict[K, V]:
    """Return what somebody else's fetch brought of the keys wanted."""
    error = task.exception()
    if error is None:
        values = task.result()
        return {key: values[key] for key in wanted if key in values}
    if not isinstance(error, Caterva2Error) or any(concerns(error, key) for key in wanted):
        raise error
    return {}
