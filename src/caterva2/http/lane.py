"""The short way to the hot routes: past the layers of a framework that they do not need.

FastAPI passes each request through some ten layers before it looks for its route, which takes longer than
answering a small slice. What all requests need (the token, metrics, bounds, what is said of failures) wraps
both ways, in `caterva2.http.app`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        if endpoint is None or scope["method"] not in methods:
            await self._other(scope, receive, send)
            return
        scope["caterva2.route"] = prefix
        try:
            response = await endpoint(Request(scope, receive, send))
        except Caterva2Error as error:
            response = expected(error)
        await response(scope, receive, send)
