"""Who may ask: the bearer of the group's token."""

from __future__ import annotations

import hmac

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from caterva2.config import Token
from caterva2.errors import Unauthorized
from caterva2.http.problems import response_of

__all__ = ["TokenMiddleware"]


class TokenMiddleware:
    """Refuses every request without the token; lets all pass where there is none."""

    def __init__(self, app: ASGIApp, token: Token | None) -> None:
        self._app = app
        self._expected = None if token is None else str.__str__(token).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] == "http" and self._expected is not None:
            given = _bearer(scope)
            if not given or not hmac.compare_digest(given, self._expected):
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
