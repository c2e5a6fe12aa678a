"""Who may ask: the bearer of a group's token, in a header or in a cookie."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import parse_qs, quote, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from caterva2.config import Token
from caterva2.errors import Unauthorized
from caterva2.http.problems import response_of

__all__ = ["COOKIE", "LOGIN", "TokenMiddleware", "login_route"]

COOKIE = "caterva2"
"""Name of the cookie that holds a token, percent-encoded."""

LOGIN = "/auth/jwt/login"
"""Where clients of Blosc2 log in, with a form."""


class TokenMiddleware:
    """Refuses every request without one of some tokens, logins aside; lets all pass where there is none."""

    def __init__(self, app: ASGIApp, tokens: Sequence[Token]) -> None:
        self._app = app
        self._expected = [str.__str__(token).encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] == "http" and self._expected and scope.get("path") != LOGIN:
            given = _given(scope)
            if not _is_one_of(given, self._expected):
                await _refusal()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def login_route(tokens: Sequence[Token]) -> Route:
    """Return the route by which clients that know users and passwords get a cookie.

    The password is the token, whoever the user is. Where no token is needed there is nobody to log in: 404.
    """
    expected = [str.__str__(token).encode() for token in tokens]

    async def login(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("latin-1"))
        given = form.get("password", [""])[0].encode()
        if not _is_one_of(given, expected):
            return _refusal()
        response = Response(status_code=204)
        response.set_cookie(COOKIE, quote(given, safe=""), httponly=True, samesite="strict")
        return response

    return Route(LOGIN, login, methods=["POST"])


def _is_one_of(given: bytes, expected: Sequence[bytes]) -> bool:
    return bool(given) and any([hmac.compare_digest(given, one) for one in expected])  # all, in equal time


def _refusal() -> Response:
    return response_of(
        Unauthorized(
            "the token is missing or wrong: all parts of a group share one (CATERVA2_TOKEN or "
            "--token-file), sent as 'Authorization: Bearer …'"
        )
    )


def _given(scope: Scope) -> bytes:
    """Return the token that a request carries; empty if there is none."""
    cookies = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, given = bytes(value).partition(b" ")
            return given.strip() if scheme.lower() == b"bearer" else b""
        if name == b"cookie":
            cookies = bytes(value)
    for cookie in cookies.split(b";"):
        name, _, value = cookie.strip().partition(b"=")
        if name == COOKIE.encode():
            return unquote_to_bytes(value)
    return b""
