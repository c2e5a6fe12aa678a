"""Putting an app together: routes, errors, the token, metrics, documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from caterva2.config import Token
from caterva2.http import problems
from caterva2.http.auth import TokenMiddleware, login_route
from caterva2.http.failures import FailureMiddleware
from caterva2.http.lane import FastLane
from caterva2.http.limits import BodyLimitMiddleware
from caterva2.http.metrics import CONTENT_TYPE, Metrics, MetricsMiddleware
from caterva2.http.openapi import describe

__all__ = ["build_app"]


def build_app(
    *,
    title: str,
    routes: Sequence[BaseRoute],
    routers: Sequence[APIRouter],
    metrics: Metrics,
    token: Token | None,
    health: Callable[[], dict[str, Any]],
    other_token: Token | None = None,
) -> FastAPI:
    """Return an app.

    Parameters
    ----------
    title : str
    routes : sequence of BaseRoute
        The hot routes, plain Starlette.
    routers : sequence of APIRouter
        The control routes.
    metrics : Metrics
    token : Token or None
        Needed by every request, if there is one.
    health : callable
        Returns further members of ``/health``; ``status`` is ``ok`` unless it says otherwise.
    other_token : Token, optional
        Is as good.
    """
    app = _App(
        title=title,
        version=version("caterva2"),
        redirect_slashes=False,
    )
    tokens = [given for given in (token, other_token) if given is not None]
    app.router.routes.extend(routes)
    if tokens:
        app.router.routes.append(login_route(tokens))
    for router in routers:
        app.include_router(router)

    @app.get("/health", tags=["service"])
    async def get_health() -> JSONResponse:
        """Whether the service serves, and how it is."""
        return JSONResponse({"status": "ok", "service": title, "version": app.version, **health()})

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def get_metrics() -> Response:
        """Prometheus metrics."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    problems.install(app)
    describe(app, with_data=bool(routes))
    app.add_middleware(FailureMiddleware)  # else Starlette answers what nobody expected itself, with text
    app.answer = _guarded(FastLane(routes, app.framework), metrics, tokens)
    return app


class _App(FastAPI):
    """FastAPI, with what all requests go through outside of it, and a short way for the hot routes."""

    answer: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(scope, receive, send)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as FastAPI does."""
        await super().__call__(scope, receive, send)


def _guarded(app: ASGIApp, metrics: Metrics, tokens: Sequence[Token]) -> ASGIApp:
    """Wrap an app; the last one is the outermost: all that is refused or fails is counted as well."""
    app = FailureMiddleware(app)
    app = BodyLimitMiddleware(app)
    app = TokenMiddleware(app, tokens=tokens)
    return MetricsMiddleware(app, metrics=metrics)
