"""Serving an app on a socket of the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from caterva2.config import Address
from caterva2.errors import CannotListen

__all__ = ["Server"]

STOP_S = 3
"""How long answers under way may take when the server is asked to stop, in seconds."""

BACKLOG = 1024


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its handling of signals: the process may have several servers, and a client."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                log_level="critical",  # what goes wrong is logged by the app
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
                timeout_keep_alive=75,
                h11_max_incomplete_event_size=64 * 1024,
                backlog=BACKLOG,
            )
        )
        self._socket: socket.socket
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._socket = _bind(self._listen)
        self.address = Address(self._listen.host, self._socket.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http-server")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
        if self._task.done():
            self._socket.close()
            await self._task
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._on_stop is not None:
            self._on_stop()
        self._server.should_exit = True
        with contextlib.suppress(Exception):  # raised by wait() already
            await self._task
        self._socket.close()

    async def wait(self) -> None:
        """Return when the server has stopped; raise what made it stop."""
        await asyncio.shield(self._task)


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
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            reason = "it is in use already; stop what listens there, or choose another with --listen"
        else:
            reason = error.strerror or str(error)
        raise CannotListen(str(listen), reason) from error
    return bound
