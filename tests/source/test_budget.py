import asyncio

import pytest

from caterva2.source.budget import SLOW_S, Budget


async def test_memory_is_granted_in_order_and_never_above_the_limit():
    budget = Budget(10)
    first = await budget.lease(8)
    waiting = [asyncio.create_task(budget.lease(n)) for n in (7, 1, 1)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)  # 1 would fit, but came later
    first.release()
    first.release()
    leases = await asyncio.gather(*waiting)
    assert budget.granted_bytes == 9
    for lease in leases:
        lease.release()
    assert budget.granted_bytes == 0


async def test_more_than_there_is_is_granted_alone():
    budget = Budget(10)
    lease = await budget.lease(1000)
    other = asyncio.create_task(budget.lease(1))
    await asyncio.sleep(0)
    assert not other.done()
    lease.release()
    (await other).release()
    assert budget.granted_bytes == 0


@pytest.mark.parametrize("granted", ["never", "before", "after"])
async def test_who_gives_up_keeps_nothing_and_blocks_nobody(granted):
    budget = Budget(10)
    lease = await budget.lease(8)
    gone, after = (asyncio.create_task(budget.lease(n)) for n in (9, 2))
    await asyncio.sleep(0)
    if granted == "before":
        lease.release()
    gone.cancel()
    if granted == "after":  # it has not heard of its end yet
        lease.release()
    with pytest.raises(asyncio.CancelledError):
        await gone
    (await after).release()
    lease.release()
    assert budget.granted_bytes == 0


async def test_what_is_sent_slowly_is_taken_back_when_others_wait():
    budget, freed = Budget(10), []
    slow, slower = [await budget.lease(5) for _ in range(2)]
    slow.revocable(lambda: freed.append("slow"))
    slower.revocable(lambda: freed.append("slower"))
    async with asyncio.timeout(SLOW_S + 1):
        other = await budget.lease(5)
    assert freed == ["slow"]
    assert (budget.granted_bytes, budget.stats.waiting, budget.stats.revoked) == (10, 0, 1)
    slow.release()  # its holder comes to do so
    assert budget.granted_bytes == 10
    async with asyncio.timeout(SLOW_S + 1):
        (await budget.lease(5)).release()
    assert freed == ["slow", "slower"]
    other.release()
    assert budget.granted_bytes == 0


async def test_what_nobody_waits_for_is_not_taken_back_and_neither_is_what_was_released():
    budget, freed = Budget(10), []
    lease = await budget.lease(6)
    lease.revocable(lambda: freed.append(1))
    waiting = asyncio.create_task(budget.lease(6))
    await asyncio.sleep(0)
    lease.release()
    (await waiting).release()
    kept = await budget.lease(10)
    kept.revocable(lambda: freed.append(2))
    await asyncio.sleep(SLOW_S * 1.1)  # that nothing happens is what is tested
    assert not freed
    assert budget.granted_bytes == 10


async def test_a_lease_is_released_with_its_block():
    budget = Budget(10)
    with pytest.raises(ZeroDivisionError), await budget.lease(10):
        raise ZeroDivisionError
    assert budget.granted_bytes == 0
