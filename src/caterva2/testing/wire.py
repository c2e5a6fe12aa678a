"""One direction of a link: how long what is sent takes, and how much goes through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

__all__ = ["PIECE_BYTES", "Wire"]

PIECE_BYTES = 1 << 18

SHAPED_PIECE_BYTES = 1 << 14
"""Connections take turns on a wire that has a delay or a rate; each sends so much at a time, in bytes."""

MAX_UNDER_WAY = 1024
"""Pieces of one connection between one end and the other; a wire without a rate has no other bound."""

SLACK_S = 0.005
"""Who is late by less than this, as a busy machine makes everybody, catches up."""


class Wire:
    """Carries bytes for all connections of a link, in one direction. It belongs to one event loop.

    Parameters
    ----------
    delay_s : float
        How long each byte is under way, in seconds.
    bytes_per_s : float or None
        How much is sent in a second, by all together; None for as much as comes.
    """

    def __init__(self, delay_s: float, bytes_per_s: float | None) -> None:
        self.delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def pieces(self, reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
        """Yield what comes from a connection, at the time at which it comes out at the other end."""
        if not self.delay_s and self._bytes_per_s is None:
            while piece := await reader.read(PIECE_BYTES):
                yield piece
            return
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_UNDER_WAY)
        sending = asyncio.create_task(self._send(reader, under_way))
        try:
            while True:
                arrives_at, piece = await under_way.get()
                await _sleep_until(arrives_at)
                if not piece:
                    return
                yield piece
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(
        self, reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        piece = b"to be read"
        while piece:
            try:
                piece = await reader.read(SHAPED_PIECE_BYTES)
            except OSError:
                piece = b""  # that a connection broke takes as long to be seen as its end
            sent_at = self._take(len(piece))
            await under_way.put((sent_at + self.delay_s, piece))
            await _sleep_until(sent_at)

    def _take(self, nbytes: int) -> float:
        """Return when bytes that are sent behind all others are on the wire, in the loop's time."""
        now = asyncio.get_running_loop().time()
        if self._bytes_per_s is None:
            return now
        self._free_at = max(self._free_at, now - SLACK_S) + nbytes / self._bytes_per_s
        return self._free_at


async def _sleep_until(at: float) -> None:
    left = at - asyncio.get_running_loop().time()
    if left > 0:
        await asyncio.sleep(left)
