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


async def test_what_is_sent_slowly_blocks_others_for_a_bounded_time():
    budget = Budget(10)
    (await budget.lease(10)).release_later()
    async with asyncio.timeout(SLOW_S + 1):
        (await budget.lease(10)).release()
