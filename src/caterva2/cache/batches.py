"""Extents in batches: put together to be fetched, taken apart to be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import TypeVar

from caterva2.model.batched import batched
from caterva2.model.extents import Extent

__all__ = ["between", "first_done", "in_batches", "joined"]

PIECE_BYTES = 64 * 1024
"""Small extents are sent together, so many bytes at a time: each piece is a message and a system call."""

T = TypeVar("T")


async def in_batches(
    groups: AsyncGenerator[Sequence[Extent]], batch_bytes: int
) -> AsyncGenerator[Sequence[Extent]]:
    """Yield the extents of each group in batches that take about `batch_bytes`, and close the groups."""
    async with aclosing(groups):
        async for group in groups:
            for batch in batched(group, batch_bytes):
                yield batch


async def first_done(tasks: set[asyncio.Task[T]]) -> set[asyncio.Task[T]]:
    """Wait until one of some tasks is done, raise if it failed, and return the others."""
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return others


def between(loaded: Sequence[tuple[Extent, bytes]], start: int, stop: int) -> Iterator[bytes]:
    """Yield what extents, which may overlap, have of the bytes from `start` to `stop`."""
    for extent, data in loaded:
        first, last = max(start, extent.offset), min(stop, extent.stop)
        yield data[first - extent.offset : last - extent.offset]
        start = last


def joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join parts until each piece has `PIECE_BYTES`; a large part alone is not copied."""
    run: list[bytes] = []
    nbytes = 0
    for part in parts:
        run.append(part)
        nbytes += len(part)
        if nbytes >= PIECE_BYTES:
            yield b"".join(run)
            run, nbytes = [], 0
    if run:
        yield b"".join(run)
