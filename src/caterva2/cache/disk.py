"""Work on the disk of the cache: done in threads, and what becomes of its failures.

They end here: counted, logged once, and no more than a cache that does not keep what it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

from caterva2.cache.version import CacheStats

__all__ = ["Disk", "DiskHealth"]

RECOVERED_S = 5.0
"""So many seconds after a write that succeeded, without a failure, a disk that failed counts as sound."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class DiskHealth:
    """Whether the disk can be used, as was found when it was last tried.

    Parameters
    ----------
    directory : Path
        Named in the log.
    stats : CacheStats
        Its `disk_errors` and `degraded` are kept.
    """

    def __init__(self, directory: Path, stats: CacheStats) -> None:
        self._directory = directory
        self._stats = stats
        self._recovery: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Let a failure inside be noted, and go no further."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Note that the disk failed."""
        self._stats.disk_errors += 1
        self.close()
        if not self._stats.degraded:
            self._stats.degraded = True
            log.warning("the cache in %s cannot be used, data is passed through: %s", self._directory, error)

    def works(self) -> None:
        """Note that the disk was written."""
        # Not sound at once: on a full disk small writes succeed between large ones that fail
        if self._stats.degraded and self._recovery is None:
            self._recovery = asyncio.get_running_loop().call_later(RECOVERED_S, self._recover)

    def _recover(self) -> None:
        self._recovery = None
        self._stats.degraded = False
        log.info("the cache in %s can be used again", self._directory)

    def close(self) -> None:
        """Wait no more for the disk to count as sound."""
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None


class Disk:
    """Threads that work on the disk. Belongs to one event loop.

    Parameters
    ----------
    directory : Path
    executor : Executor
    stats : CacheStats

    Attributes
    ----------
    health : DiskHealth
    """

    def __init__(self, directory: Path, executor: Executor, stats: CacheStats) -> None:
        self.health = DiskHealth(directory, stats)
        self._executor = executor
        self._jobs: set[asyncio.Task[Any]] = set()  # Any: of whatever result

    async def run(self, work: Callable[..., T], *args: Any) -> T:  # Any: passed through to `work`
        """Do work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work that must be accounted for even if who wants it is cancelled meanwhile."""
        return await asyncio.shield(self._job(work))

    def later(self, work: Callable[..., None], *args: Any) -> None:
        """Do work in a thread that nobody waits for; its failures are noted."""

        async def run() -> None:
            with self.health.guard():
                await self.run(work, *args)

        self._job(run())

    def _job(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def close(self) -> None:
        """Wait until all work is done."""
        self.health.close()
        while self._jobs:
            await asyncio.gather(*self._jobs, return_exceptions=True)
        self.health.close()
