"""Who may ask: the bearer of a group's token."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from caterva2.config import Token
from caterva2.errors import Unauthorized
from caterva2.http.problems import response_of

__all__ = ["TokenMiddleware"]


class TokenMiddleware:
    """Refuses every request without one of some tokens; lets all pass where there is none."""

    def __init__(self, app: ASGIApp, tokens: Sequence[Token]) -> None:
        self._app = app
        self._expected = [str.__str__(token).encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] == "http" and self._expected:
            given = _bearer(scope)
            if not given or not any([hmac.compare_digest(given, expected) for expected in self._expected]):
                await _refusal()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _refusal() -> Response:
    return response_of(
        Unauthorized(
            "the token is missing or wrong: all parts of a group share one (CATERVA2_TOKEN or "
            "--token-file), sent as 'Authorization: Bearer …'"
        )
    )


def _bearer(scope: Scope) -> bytes:
    """Return the token that a request carries; empty if there is none."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, given = bytes(value).partition(b" ")
            if scheme.lower() == b"bearer":
                return given.strip()
    return b""
