"""Bounds on the bodies of requests: nothing that is asked for here needs a long one."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caterva2.errors import TooLarge
from caterva2.http.problems import problem, response_of

__all__ = ["BODY_S", "MAX_BODY_BYTES", "BodyLimitMiddleware"]

MAX_BODY_BYTES = 1 << 20
"""Largest body of a request."""

BODY_S = 30.0
"""How long a body may take to arrive, in seconds."""


class BodyLimitMiddleware:
    """Refuses bodies that are longer than `MAX_BODY_BYTES`, before they are read where they say so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or 408, or pass the request on."""
        declared = _declared_bytes(scope)
        if declared == 0:
            await self._app(scope, receive, send)
            return
        if declared is not None and declared > MAX_BODY_BYTES:
            await _too_large(declared)(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_S):
                body = await _read(receive)
        except TimeoutError:
            refusal = problem(408, "bad-request", f"the body of the request did not arrive in {BODY_S:g} s")
            await refusal(scope, receive, send)
            return
        if body is None:
            return
        if len(body) > MAX_BODY_BYTES:
            await _too_large(len(body))(scope, receive, send)
        else:
            await self._app(scope, _Replay(body, receive), send)


class _Replay:
    """The `Receive` of a request whose body was read already."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


def _declared_bytes(scope: Scope) -> int | None:
    """Return how long the body of a request is; None if that is not known beforehand."""
    if scope["type"] != "http":
        return 0
    declared: int | None = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":  # the parser has checked that it is a number
            declared = int(value) if len(value) < 20 else MAX_BODY_BYTES + 1
    return declared


async def _read(receive: Receive) -> bytes | None:
    """Return a body, or as much as shows that it is too long; None if the client has gone."""
    body = bytearray()
    while len(body) <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


def _too_large(nbytes: int) -> Response:
    return response_of(TooLarge(nbytes, MAX_BODY_BYTES, "body of the request"))
