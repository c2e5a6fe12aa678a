"""Who may ask: the bearer of the group's token."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from caterva2.config import Token
from caterva2.errors import Unauthorized
from caterva2.http.problems import response_of

__all__ = ["TokenMiddleware"]


class TokenMiddleware:
    """Refuses every request without the token; lets all pass where there is none."""

    def __init__(self, app: ASGIApp, token: Token | None) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {str.__str__(token)}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] == "http" and self._expected is not None:
            given = Headers(scope=scope).get("authorization", "").encode()
            if not hmac.compare_digest(given, self._expected):
                refusal = response_of(
                    Unauthorized(
                        "the token is missing or wrong: all parts of a group share one (CATERVA2_TOKEN or "
                        "--token-file), sent as 'Authorization: Bearer …'"
                    )
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
