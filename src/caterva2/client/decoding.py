"""Answers that arrive on an event loop, decoded in threads while they arrive.

What decodes (`caterva2.client.blocks`, `caterva2.client.npy`) reads a stream and waits for it. So each answer
gets a thread and a `Pipe` to it, which holds little: an event loop that is faster waits for its thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from caterva2.client.blocks import Decoders
from caterva2.client.transport import BrokenOff
from caterva2.errors import Unavailable

__all__ = ["Decoding", "Pipe"]

PIPE_BYTES = 1024 * 1024
"""What a pipe holds before who fills it has to wait, in bytes."""

T = TypeVar("T")


class Pipe:
    """Bytes on their way from an event loop to a thread, which reads them as a stream."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = asyncio.Event()
        self._changed = threading.Condition()
        self._parts: deque[memoryview] = deque()
        self._held = 0
        self._ended = False
        self._free = False
        self._failure: Unavailable | None = None

    # -- on the event loop -----------------------------------------------------------------------

    async def put(self, data: bytes) -> None:
        """Add bytes; return when there is room for more, or nobody reads them any more."""
        if not data:
            return
        with self._changed:
            self._parts.append(memoryview(data))
            self._held += len(data)
            self._changed.notify()
            if self._held < PIPE_BYTES or self._free:
                return
            self._room.clear()
        await self._room.wait()

    def end(self, failure: Unavailable | None = None) -> None:
        """Say that all has come; or that it will not, which who reads it is told at once."""
        with self._changed:
            self._ended = True
            self._failure = failure
            self._changed.notify()

    def free(self) -> None:
        """Say that nobody reads it any more."""
        self._free = True
        self._room.set()

    # -- in the thread ---------------------------------------------------------------------------

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end."""
        parts, left = [], size
        while left and (part := self._take(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes.

        Raises
        ------
        Unavailable
            If it ends before.
        """
        data = self.read(size)
        if len(data) != size:
            raise BrokenOff("the answer was broken off; try again")
        return data

    def read_into(self, target: memoryview) -> None:
        """Fill a buffer of bytes.

        Raises
        ------
        Unavailable
            If it ends before the buffer is full.
        """
        position = 0
        while position < len(target):
            part = self._take(len(target) - position)
            if not part:
                raise BrokenOff("the answer was broken off; try again")
            target[position : position + len(part)] = part
            position += len(part)

    def _take(self, most: int) -> memoryview:
        with self._changed:
            self._changed.wait_for(lambda: self._parts or self._ended)
            if self._failure is not None:
                raise self._failure
            if not self._parts:
                return memoryview(b"")
            part = self._parts.popleft()
            if len(part) > most:
                self._parts.appendleft(part[most:])
                part = part[:most]
            full = self._held >= PIPE_BYTES
            self._held -= len(part)
            if full and self._held < PIPE_BYTES:
                self._loop.call_soon_threadsafe(self._room.set)
            return part


class Decoding:
    """The threads in which an asynchronous client decodes, started when there is work.

    Parameters
    ----------
    most : int
        How many answers can be under way.

    Attributes
    ----------
    decoders : Decoders
        Those that help with large ones.
    """

    def __init__(self, most: int) -> None:
        self.decoders = Decoders()
        self._most = most
        self._executor: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Let the threads end; what is under way is finished."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)
        self.decoders.close()

    async def decode(self, pieces: AsyncIterator[bytes], read: Callable[[Pipe], T]) -> T:
        """Return what is read of an answer, in a thread, while it arrives.

        When this is cancelled, or the answer breaks off, the thread is stopped before it returns.

        Parameters
        ----------
        pieces : async iterator of bytes
        read : callable
            Gets a stream.

        Raises
        ------
        Unavailable
            If the answer breaks off.
        Exception
            As `read` does.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._most, "caterva2-receive")
        pipe = Pipe(asyncio.get_running_loop())
        work = self._executor.submit(read, pipe)
        done = asyncio.wrap_future(work)
        done.add_done_callback(lambda _: pipe.free())
        try:
            async for piece in pieces:
                await pipe.put(piece)
                if done.done():  # it has failed
                    break
            pipe.end()
            return await done
        except BaseException:
            pipe.end(BrokenOff("nobody waits for it any more"))
            thread = asyncio.wrap_future(work) if done.cancelled() else done
            await asyncio.wait([thread])
            if not thread.cancelled():
                thread.exception()  # which is a consequence
            raise
