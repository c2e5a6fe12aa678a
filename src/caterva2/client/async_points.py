"""Lists and masks on an event loop: planned in a thread by `caterva2.client.points`, read on the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from caterva2.client.keys import Fancy, fancy, only_mask
from caterva2.client.points import read_mask, read_points
from caterva2.errors import InvalidSelection
from caterva2.model.selection import Selection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["AsyncReads", "points_of"]

Elements = Any
"""An ndarray; mypy knows them only by the types of their elements."""


class AsyncReads:
    """What reads one version of an array on an event loop, for a thread that waits: a `PointReader`.

    Parameters
    ----------
    shape, chunks : tuple of int
    dtype : numpy.dtype
    box, points : callable
        Read a selection, and what lists select in one request.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: np.dtype[Any],
        box: Callable[[Selection], Coroutine[Any, Any, Elements]],
        points: Callable[[Fancy], Coroutine[Any, Any, Elements]],
    ) -> None:
        self.shape, self.chunks, self.dtype = shape, chunks, dtype
        self._box, self._points = box, points
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._read: Future[Elements] | None = None
        self._stopped = False

    def box(self, selection: Selection) -> Elements:
        """Read a selection."""
        return self._wait(self._box(selection))

    def points(self, key: Fancy) -> Elements:
        """Read what lists select, in one request."""
        return self._wait(self._points(key))

    def _wait(self, read: Coroutine[Any, Any, Elements]) -> Elements:
        with self._lock:
            if self._stopped or self._loop is None:
                read.close()
                raise CancelledError
            self._read = asyncio.run_coroutine_threadsafe(read, self._loop)
        return self._read.result()

    async def run(self, plan: Callable[[], Elements]) -> Elements:
        """Run what reads by this, in a thread; if this is cancelled, its reads are, and it ends."""
        self._loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(asyncio.to_thread(plan))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            with self._lock:
                self._stopped = True
                if self._read is not None:
                    self._read.cancel()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # that it was cancelled
            raise


def points_of(reads: AsyncReads, parts: tuple[Any, ...]) -> Awaitable[npt.NDArray[Any]]:
    """Return what reads a key with lists or masks, when it is awaited.

    Raises
    ------
    InvalidSelection
        If it selects nothing of such an array.
    """
    mask = only_mask(parts)
    if mask is None:
        key = fancy(parts, reads.shape)
        return reads.run(lambda: read_points(reads, key))
    if mask.shape != reads.shape[: mask.ndim]:
        raise InvalidSelection(f"the mask has the shape {mask.shape}, the array {reads.shape}")
    return reads.run(lambda: read_mask(reads, mask))
