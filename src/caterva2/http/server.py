"""Serving an app on a socket of the running event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from caterva2.config import Address
from caterva2.errors import CannotListen
from caterva2.http.connection import Connection

__all__ = ["Server", "announced_url"]

STOP_S = 3
"""How long answers under way may take when the server is asked to stop, in seconds."""

BREAK_OFF_S = 1.0
"""How long answers that were broken off may take to clean up, in seconds."""

KEEP_ALIVE_S = 75
"""How long a connection is kept between requests, in seconds."""

BACKLOG = 1024

NOWHERE = "192.0.2.1"
"""An address of documentation (RFC 5737), to ask the routing table for the way out."""


class Server:
    """Serves an app; an async context manager.

    Parameters
    ----------
    app : ASGIApp
    listen : Address
        Port 0 chooses a free one; `address` has it.
    on_stop : callable, optional
        Called when the server is asked to stop, before it waits for answers under way (to end streams).

    Raises
    ------
    CannotListen
        On entering: the address is in use, not this machine's, or not permitted.
    """

    def __init__(self, app: ASGIApp, listen: Address, on_stop: Callable[[], None] | None = None) -> None:
        self._listen = listen
        self._on_stop = on_stop
        self.address = listen
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",  # what goes wrong is logged by the app
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing asks who a client is
                timeout_keep_alive=KEEP_ALIVE_S,
                backlog=BACKLOG,
            )
        )
        self._socket: socket.socket
        self._ticks: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._socket = _bind(self._listen)
        try:
            self.address = Address(self._listen.host, self._socket.getsockname()[1])
            # its serve() would take the process's signals: there may be several servers here, and a client
            self._server.config.load()
            self._server.lifespan = self._server.config.lifespan_class(self._server.config)
            await self._server.startup(sockets=[self._socket])
            await run_in_threadpool(int)  # imports half of anyio: else somebody's request waits for that
        except BaseException:
            self._socket.close()
            raise
        self._ticks = asyncio.create_task(self._server.main_loop(), name="http-server")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._on_stop is not None:
            self._on_stop()
        self._server.should_exit = True
        self._ticks.cancel()
        try:
            async with asyncio.timeout(STOP_S):
                await self._server.shutdown(sockets=[self._socket])
        except TimeoutError:
            pass  # the peers that are left do not read, or wait for what takes long
        finally:
            await self._break_off()
            self._socket.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    @property
    def answering(self) -> int:
        """How many requests are under way."""
        return len(self._server.server_state.tasks)

    async def wait(self) -> None:
        """Return when the server has stopped; raise what made it stop."""
        await asyncio.wait({self._ticks})
        if not self._ticks.cancelled():
            self._ticks.result()

    async def _break_off(self) -> None:
        state = self._server.server_state
        tasks = tuple(state.tasks)
        for task in tasks:
            task.cancel()
        for connection in tuple(state.connections):
            if (transport := connection.transport) is not None:
                transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=BREAK_OFF_S)


def announced_url(address: Address, broker: str) -> str:
    """Return the URL by which others reach a service.

    Parameters
    ----------
    address : Address
        Where it listens. On every interface, it is announced at the address of the one that leads to the
        broker, or if that is on this machine, to everywhere else.
    broker : str
        URL of the broker.
    """
    if address.host not in ("", "0.0.0.0", "::"):
        return address.url
    towards = urlsplit(broker).hostname or ""
    for host in (towards, NOWHERE):
        own = _own_address(host)
        if own is not None and not Address(own, 0).is_loopback:
            return Address(own, address.port).url
    return Address(socket.gethostname(), address.port).url


def _own_address(host: str) -> str | None:
    """Return the address of the interface that leads to a host; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _bind(listen: Address) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(str(listen), error.strerror or str(error)) from error
    try:
        if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # here, so that a loser of a race for the address is told so too
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            reason = "it is in use already; stop what listens there, or choose another (--listen, --port)"
        else:
            reason = error.strerror or str(error)
        raise CannotListen(str(listen), reason) from error
    return bound
