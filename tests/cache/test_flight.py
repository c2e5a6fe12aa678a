import asyncio

import pytest

from caterva2.cache.flight import Flights
from caterva2.errors import IntegrityError, Unavailable


class Fetcher:
    def __init__(self):
        self.calls = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.failures = []

    async def __call__(self, keys):
        self.calls.append(list(keys))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        return {key: key * 10 for key in keys}


@pytest.fixture
def flights():
    return Flights()


@pytest.fixture
def fetcher():
    return Fetcher()


async def started(coroutine):
    task = asyncio.create_task(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_one_fetch_for_all(flights, fetcher):
    readers = [await started(flights.get([1, 2], fetcher)) for _ in range(50)]
    readers.append(await started(flights.get([2, 3, 3], fetcher)))
    fetcher.gate.set()
    results = await asyncio.gather(*readers)
    assert results[:50] == [{1: 10, 2: 20}] * 50
    assert results[50] == {2: 20, 3: 30}
    assert fetcher.calls == [[1, 2], [3]]


async def test_a_cancelled_reader_does_not_cancel_the_others(flights, fetcher):
    first = await started(flights.get([1], fetcher))
    second = await started(flights.get([1], fetcher))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fetcher.gate.set()
    assert await second == {1: 10}
    assert (fetcher.calls, fetcher.cancelled) == ([[1]], 0)


async def test_the_last_reader_that_leaves_ends_the_fetch(flights, fetcher):
    readers = [await started(flights.get([1], fetcher)) for _ in range(3)]
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    # who comes now must not join what is being cancelled
    fetcher.gate.set()
    assert await flights.get([1], fetcher) == {1: 10}
    assert (fetcher.calls, fetcher.cancelled) == ([[1], [1]], 1)


async def test_a_failure_reaches_all_and_is_not_remembered(flights, fetcher):
    fetcher.failures.append(Unavailable("no"))
    readers = [await started(flights.get([1], fetcher)) for _ in range(3)]
    fetcher.gate.set()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    assert await flights.get([1], fetcher) == {1: 10}


async def test_a_failure_of_another_key_is_not_mine(flights, fetcher):
    def concerns(error, key):
        return error.offset == key

    fetcher.failures.append(IntegrityError("foo/a", "there", 1, 1))
    first = await started(flights.get([1, 2], fetcher, concerns))
    second = await started(flights.get([2], fetcher, concerns))
    fetcher.gate.set()
    with pytest.raises(IntegrityError):
        await first
    assert await second == {2: 20}


async def test_close_ends_what_is_under_way(flights, fetcher):
    reader = await started(flights.get([1], fetcher))
    await flights.close()
    assert fetcher.cancelled == 1
    with pytest.raises(Unavailable):
        await reader
    with pytest.raises(Unavailable):
        await flights.get([1], fetcher)
