"""Much work on the event loop, and others who have their turn meanwhile."""

from __future__ import annotations

import asyncio
import time

from caterva2.turns import TURN_S, Turn, in_turns, runs


def spend(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_others_have_their_turn_while_much_is_done() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    done = []
    async for item in in_turns(range(10)):
        spend(TURN_S)
        done.append(item)
    task.cancel()
    assert done == list(range(10))
    assert turns >= 10


async def test_little_is_done_at_once() -> None:
    """A turn of the loop for each item would take longer than the items."""
    loop, others = asyncio.get_running_loop(), []
    turn = Turn()
    turn._ends = float("inf")
    loop.call_soon(others.append, 1)
    for _ in range(1000):
        await turn.give()
    assert others == []
    turn._ends = 0.0
    assert turn.is_over
    await turn.give()
    assert others == [1]
    assert not turn.is_over


def test_runs() -> None:
    assert [list(run) for run in runs(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(runs([], 2)) == []
