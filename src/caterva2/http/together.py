"""The head of an answer and what follows at once, in one write.

Uvicorn writes the head of an answer, then its body, and uvloop gives each to the system at once: a client
wakes up for the head, only to wait for the rest. For a small answer that takes as long as all else.
"""

from __future__ import annotations

import asyncio

__all__ = ["Together"]

JOINED_BYTES = 64 * 1024
"""Bodies up to this size, in bytes, are copied behind the head; larger ones are given along with it."""


class Together(asyncio.Transport):
    """What the answers of a connection are written to, instead of its transport.

    The first write of an answer is held back until the next one, or until the loop has its turn: who streams
    sends the head at once.

    Parameters
    ----------
    transport : asyncio.Transport
    loop : AbstractEventLoop
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._begins = True

    def begin(self) -> None:
        """Note that the next write is the first one of an answer."""
        self._begins = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write what was held back, and this."""
        if self._begins:
            self._begins = False
            self._held = bytes(data)
            self._loop.call_soon(self.flush)
        elif not self._held:
            self._transport.write(data)
        else:
            head, self._held = self._held, b""
            if len(data) <= JOINED_BYTES:
                self._transport.write(b"".join((head, data)))
            else:
                self._transport.writelines((head, data))

    def flush(self) -> None:
        """Write what was held back."""
        if self._held:
            head, self._held = self._held, b""
            self._transport.write(head)

    def is_closing(self) -> bool:
        """Return whether the connection is being closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what was held back, and close the connection."""
        self.flush()
        self._transport.close()
