"""Errors as RFC 9457 problem details: the one table from `caterva2.errors` to HTTP."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from caterva2 import errors

__all__ = ["MEDIA_TYPE", "PREFIX", "STATUS", "expected", "install", "problem", "response_of", "unexpected"]

MEDIA_TYPE = "application/problem+json"

PREFIX = "urn:caterva2:problem:"
"""What a problem's ``type`` begins with; the slug of the error follows."""

STATUS: dict[type[errors.Caterva2Error], HTTPStatus] = {
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.InvalidRange: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.BadRequest: HTTPStatus.BAD_REQUEST,
    errors.Changed: HTTPStatus.PRECONDITION_FAILED,
    errors.NotCached: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Unsupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.Corrupt: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.IntegrityError: HTTPStatus.BAD_GATEWAY,
}
"""Looked up along the bases of an error; what is not here is a 500."""


def problem(
    status: int, slug: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """Return a problem response, which no cache keeps.

    Parameters
    ----------
    status : int
    slug : str
        Kind of problem.
    detail : str
        What failed, where, and what to do.
    headers : dict, optional
    **members
        Data of the problem, JSON values.
    """
    body = {
        "type": PREFIX + slug,
        "title": slug.replace("-", " ").capitalize(),
        "status": int(status),
        "detail": detail,
        **members,
    }
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def response_of(error: errors.Caterva2Error) -> Response:
    """Return an error as a problem response, with its data as members."""
    status = next(
        (STATUS[base] for base in type(error).__mro__ if base in STATUS),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return unexpected()
    members = {name: value for name, value in vars(error).items() if _is_data(name, value)}
    headers = {}
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, errors.InvalidRange):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status, error.slug, str(error), headers=headers, **members)


def expected(error: errors.Caterva2Error) -> Response:
    """Do as `response_of`, but raise an error that nobody expected: see `caterva2.http.failures`."""
    response = response_of(error)
    if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    return response


def unexpected() -> Response:
    """Return the problem of an error that the client can do nothing about; it says nothing of the inside."""
    detail = "an unexpected error happened; it is in the log of the service"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "error", detail)


def _is_data(name: str, value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)  # JSON has no others
    return not name.startswith("_") and isinstance(value, str | int | None)


_FRAMEWORK = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}


def install(app: FastAPI) -> None:
    """Make an app answer every error that is expected with a problem."""

    async def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, errors.Caterva2Error)
        return expected(error)

    async def of_framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        slug = _FRAMEWORK.get(error.status_code, "bad-request")
        headers = dict(error.headers) if error.headers else None
        detail = str(error.detail)
        if detail == HTTPStatus.NOT_FOUND.phrase:  # no such route: often it is another service that was meant
            detail = f"a {app.title} has no {request.url.path}: is this the service that was meant?"
        return problem(error.status_code, slug, detail, headers=headers)

    async def of_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return problem(HTTPStatus.BAD_REQUEST, "bad-request", wrong)

    app.add_exception_handler(errors.Caterva2Error, known)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(RequestValidationError, of_validation)
