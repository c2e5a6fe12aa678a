"""Pages of manifests that are made before somebody asks for them: those behind the ones that were made."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from caterva2.errors import Caterva2Error
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath

__all__ = ["Ahead"]

FOLLOWING = 3
"""For a page that was made because it was asked for, so many more are: who reads one file of many pages reads
it to make them, so this bounds what a reader of single elements can make a host read."""

WAITING = 64
"""Most that wait to be made; then those that were noted first are forgotten."""


class Ahead:
    """Makes pages one at a time, while there are some to be made. Belongs to one event loop.

    Parameters
    ----------
    make : callable
        Makes a page of a version, unless it is there, and does not note it here.
    """

    def __init__(self, make: Callable[[Head, int], Awaitable[object]]) -> None:
        self._make = make
        self._waiting: OrderedDict[tuple[DatasetPath, str, int], Head] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def note(self, head: Head, number: int) -> None:
        """Note that a page was made for somebody."""
        for following in range(number + 1, number + 1 + min(FOLLOWING, head.npages - 1)):
            self._waiting[head.path, head.etag, following % head.npages] = head
        while len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)
        if self._waiting and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                (_, _, number), head = self._waiting.popitem(last=False)
                with suppress(Caterva2Error):  # who asks for it hears of it
                    await self._make(head, number)
        finally:
            self._task = None

    async def close(self) -> None:
        """Give up what is being made, and forget what waits."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
