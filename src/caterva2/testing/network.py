"""A network between services that counts, can be cut, and comes back: relays of TCP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any, Literal, Self, TypeVar

from caterva2.testing.wire import Wire

__all__ = ["Link", "LinkState", "Network"]

LinkState = Literal["open", "cut", "hung"]
"""``cut``: connections end, and new ones at once; ``hung``: they stay, and nothing comes through any more."""

T = TypeVar("T")


class Network:
    """Makes links; they run on an event loop in a thread of its own. A context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._links: list[Link] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for link in self._links:
            link.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(
        self,
        port: int,
        rewrite: Callable[[bytes], bytes] | None = None,
        *,
        delay_s: float = 0.0,
        bytes_per_s: float | None = None,
    ) -> Link:
        """Return a new link to a port of the loopback interface, open.

        Parameters
        ----------
        port : int
            Where it leads; whoever is to use it is told to connect to `Link.port`.
        rewrite : callable, optional
            Changes what comes from there, piece by piece, but not its length: an address that is to lead
            through another link.
        delay_s : float
            How long each byte is under way in either direction, in seconds: half of a round trip.
        bytes_per_s : float, optional
            How much goes through in a second in either direction, for all connections together.
        """
        link = Link(self, port, rewrite, (Wire(delay_s, bytes_per_s), Wire(delay_s, bytes_per_s)))
        self._links.append(link)
        return link

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the links and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Link:
    """A relay from a free port to a given one; see `Network.link`.

    Attributes
    ----------
    port : int
        Where it listens.
    target : int
        Where it leads; may be changed, for connections that are made later.
    received_bytes : int
        What came from the target so far, headers included.
    sent_bytes : int
        What was sent to the target so far.
    """

    def __init__(
        self,
        network: Network,
        target: int,
        rewrite: Callable[[bytes], bytes] | None,
        wires: tuple[Wire, Wire],
    ) -> None:
        self.target = target
        self.received_bytes = 0
        self.sent_bytes = 0
        self._network = network
        self._rewrite = rewrite or (lambda piece: piece)
        self._there, self._back = wires
        self._state: LinkState = "open"
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server, self.port, self._flows = network.run(self._listen())

    @property
    def state(self) -> LinkState:
        """Whether it is open."""
        return self._state

    def set_state(self, state: LinkState) -> None:
        """Open, cut or hang it. Connections that hung go on when it is opened."""
        self._network.run(self._set_state(state))

    def close(self) -> None:
        """Stop listening and end all connections."""
        self._network.run(self._close())

    async def _listen(self) -> tuple[asyncio.Server, int, asyncio.Event]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        flows = asyncio.Event()
        flows.set()
        return server, server.sockets[0].getsockname()[1], flows

    async def _set_state(self, state: LinkState) -> None:
        self._state = state
        if state == "hung":
            self._flows.clear()
        else:
            self._flows.set()
        if state == "cut":
            for writer in self._writers:
                writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # cancelled by `close` alone
                await self._relay(reader, writer)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        if self._state == "cut":
            return
        await asyncio.sleep(self._there.delay_s + self._back.delay_s)  # what opening a connection takes
        there, to = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.add(to)
        try:
            ways = [
                asyncio.ensure_future(self._pump(reader, to, back=False)),
                asyncio.ensure_future(self._pump(there, writer, back=True)),
            ]
            try:  # with one way the other ends
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            await writer.wait_closed()
        finally:
            self._writers.discard(to)
            to.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        wire = self._back if back else self._there
        async with aclosing(wire.pieces(reader)) as pieces:
            async for piece in pieces:
                await self._flows.wait()
                if back:
                    self.received_bytes += len(piece)
                    writer.write(self._rewrite(piece))
                else:
                    self.sent_bytes += len(piece)
                    writer.write(piece)
                await writer.drain()
