"""The short way to the hot routes: past the layers of a framework that they do not need.

FastAPI passes each request through some ten layers before it looks for its route, which takes longer than
answering a small slice. What all requests need (the token, metrics, bounds, what is said of failures) wraps
both ways, in `caterva2.http.app`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers, ImmutableMultiDict, QueryParams
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from caterva2.errors import Caterva2Error
from caterva2.http.problems import expected

__all__ = ["FastLane"]

_TAIL = "{path:path}"


class FastLane:
    """Answers requests to some routes at once, and passes on all others.

    Parameters
    ----------
    routes : sequence of BaseRoute
        Those whose path is ``/data/`` or ``/api/NAME/`` and a path to the end are answered here. A method
        that a route does not have is left to the framework, which says so.
    other : ASGIApp
        It has these routes as well.
    """

    def __init__(self, routes: Sequence[BaseRoute], other: ASGIApp) -> None:
        self._other = other
        self._routes = {
            route.path.removesuffix(_TAIL): (route.methods or set(), route.endpoint)
            for route in routes
            if isinstance(route, Route) and route.path.endswith(_TAIL)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        path: str = scope.get("path", "")
        prefix = path[: path.find("/", 5) + 1]  # "/data/", or "/api/" and a name
        methods, endpoint = self._routes.get(prefix, ((), None))
        if endpoint is None or scope.get("method") not in methods:
            await self._other(scope, receive, send)
            return
        scope["caterva2.route"] = prefix
        try:
            response = await endpoint(_Request(scope, receive, send))
        except Caterva2Error as error:
            response = expected(error)
        await response(scope, receive, send)


class _Request(Request):
    """A request whose headers and query are asked for many times."""

    @property
    def headers(self) -> Headers:
        if not hasattr(self, "_headers"):
            self._headers = _Headers(self.scope["headers"])
        return self._headers

    @property
    def query_params(self) -> QueryParams:
        if not hasattr(self, "_query_params"):
            text: bytes = self.scope["query_string"]
            plain = b"%" not in text and b"+" not in text
            self._query_params = _PlainQuery(text.decode("latin-1")) if plain else QueryParams(text)
        return self._query_params


class _PlainQuery(QueryParams):
    """A query in which nothing is escaped, as in most."""

    def __init__(self, text: str) -> None:
        parts = [part.partition("=") for part in text.split("&") if part]
        ImmutableMultiDict.__init__(self, [(name, value) for name, _, value in parts])


class _Headers(Headers):
    """Headers that are decoded once, and found by name."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=raw)
        # of several lines of a name, the first one
        self._first = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(raw)}

    def get(self, key: str, default: Any = None) -> Any:  # Any: as of a mapping
        return self._first.get(key.lower(), default)

    def getlist(self, key: str) -> list[str]:
        return super().getlist(key) if key in self else []

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._first
