"""Connections that do not wait for ever: uvicorn's HTTP/1.1, with bounds on what a peer may make it hold."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from caterva2.http.problems import MEDIA_TYPE, problem
from caterva2.http.together import Together

__all__ = ["HEAD_S", "MAX_CONNECTIONS", "MAX_HEAD_BYTES", "STALL_S", "Connection"]

HEAD_S = 30.0
"""How long a new connection may take to send the head of a request, in seconds."""

STALL_S = 60.0
"""An answer of which the peer took nothing for this long, in seconds, is given up."""

MAX_HEAD_BYTES = 64 * 1024
"""Largest head of a request: its line and headers."""

MAX_CONNECTIONS = 1000
"""With more connections than this, new requests are told to come back later."""

# What it has to say is said already: failures of the app by its own log, malformed requests to their sender.
_SILENT = logging.Logger("caterva2.http.connection", level=logging.CRITICAL + 1)


class Connection(HttpToolsProtocol):
    """One connection of a client.

    Uvicorn bounds the pause between requests only. Here the first request and each head must arrive in
    `HEAD_S`, a head has a limit of `MAX_HEAD_BYTES`, and a peer that stops reading for `STALL_S` is left.
    What is being made for a peer that goes is made no further: it may be waiting for another host.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # Any: uvicorn's
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _SILENT
        self.access_log = False
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._answering: asyncio.Task[Any] | None = None  # Any: the app's, of no use
        self._out: Together
        self._served, self.app = self.app, self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = self._answering = asyncio.current_task()
        try:
            app = self._served if len(self.connections) <= MAX_CONNECTIONS else _busy
            await app(scope, receive, send)
        finally:
            if self._answering is task:  # the next one may have begun behind the last byte of this
                self._answering = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._out = Together(transport, self.loop)
        self._head_timer = self.loop.call_later(HEAD_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all timers, and the answer that nobody will read."""
        self._disarm_head()
        self._disarm_stall()
        super().connection_lost(exc)
        if self._answering is not None:
            self._answering.cancel()

    # -- the head of a request -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and see that a head does not grow without end."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        # What arrived together with the begin of a head, or the end of a request, may hold whole requests and
        # their bodies: not counted.
        self._head_bytes = 0 if self._head_bytes < 0 else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the head of a request may have {MAX_HEAD_BYTES} bytes",
            )
        elif self._idle and self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._give_up)

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._head_bytes = -1

    def on_headers_complete(self) -> None:
        """Note that a head has ended."""
        self._in_head = False
        self._disarm_head()
        super().on_headers_complete()
        self.cycle.transport = self._out  # its task has not begun yet

    def on_response_complete(self) -> None:
        """Note that the next answer may begin."""
        self._out.flush()
        self._out.begin()
        super().on_response_complete()

    def on_message_complete(self) -> None:
        """Note that the next head may begin."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = -1

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, with a problem as everything else."""
        self._refuse(HTTPStatus.BAD_REQUEST, f"{msg} It must be HTTP/1.1 as RFC 9112 has it.")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        if self._idle:  # else the refusal would stand within another answer
            body = bytes(problem(status, "bad-request", detail).body)
            lines = (
                f"HTTP/1.1 {status.value} {status.phrase}",
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                "connection: close",
            )
            self.transport.write("\r\n".join((*lines, "", "")).encode() + body)
        self.transport.close()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up(self) -> None:
        self._head_timer = None
        self.transport.close()

    def _disarm_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    # -- a peer that does not read ---------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Stop writing; begin to watch whether the peer takes anything."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on writing."""
        self._disarm_stall()
        super().resume_writing()

    def _watch(self, waiting_bytes: int) -> None:
        self._disarm_stall()
        self._stall_timer = self.loop.call_later(STALL_S, self._check_stall, waiting_bytes)

    def _check_stall(self, waiting_bytes: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < waiting_bytes:
            self._watch(left)
        else:
            self.transport.abort()

    def _disarm_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse any request, and the connection with it."""
    detail = f"{MAX_CONNECTIONS} connections are open already: try again later"
    headers = {"Retry-After": "5", "Connection": "close"}
    await problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, headers=headers)(
        scope, receive, send
    )
