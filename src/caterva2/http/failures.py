"""What is left when an answer fails in a way that nobody expected, or after it has begun."""

from __future__ import annotations

import traceback

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caterva2.errors import Caterva2Error
from caterva2.http.problems import unexpected

__all__ = ["FailureMiddleware"]

log = structlog.get_logger(__name__)


class FailureMiddleware:
    """Answers what nobody expected with a problem, and logs it.

    A failure after the answer has begun cannot be told any more: the answer is left incomplete, upon which
    the server closes the connection, so that the client sees that something is missing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            # Starlette wraps what it would have handled, had the answer not begun
            known = error if isinstance(error, Caterva2Error) else error.__cause__
            about = {"method": scope["method"], "path": scope["path"]}
            if begun and isinstance(known, Caterva2Error):
                log.warning("answer broken off", **about, reason=str(known))
            else:
                # as text: the tracebacks of renderers show variables, the token among them, and take seconds
                text = traceback.format_exc()
                log.error("unexpected error", **about, exception=text)  # noqa: TRY400
            if not begun:
                await unexpected()(scope, receive, send)
