"""What errors of a service mean: RFC 9457 problem details as `caterva2.errors`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from caterva2 import errors
from caterva2.client.protocol import Reply

__all__ = ["KINDS", "PROBLEM_PREFIX", "error_of"]

PROBLEM_PREFIX = "urn:caterva2:problem:"


def _kinds() -> dict[str, type[errors.Caterva2Error]]:
    return {kind.slug: kind for kind in (getattr(errors, name) for name in errors.__all__)}


KINDS = _kinds()
"""Types of errors by their slug."""

_MAKE: dict[type[errors.Caterva2Error], Callable[[str, Mapping[str, Any]], errors.Caterva2Error]] = {
    errors.NotFound: lambda text, data: errors.NotFound(str(data.get("path", "")), text),
    errors.InvalidRange: lambda text, data: errors.InvalidRange(text, int(data.get("size", 0))),
    errors.TooLarge: lambda _, data: errors.TooLarge(
        int(data.get("nbytes", 0)), int(data.get("limit_bytes", 0))
    ),
    errors.Changed: lambda _, data: errors.Changed(
        str(data.get("path", "")), data.get("wanted_etag"), data.get("current_etag")
    ),
    errors.Unavailable: lambda text, data: errors.Unavailable(text, _seconds(data.get("retry_after_s"))),
    errors.IntegrityError: lambda _, data: errors.IntegrityError(
        str(data.get("path", "")),
        str(data.get("source", "")),
        int(data.get("offset", 0)),
        int(data.get("size", 0)),
    ),
    errors.StateInUse: lambda _, data: errors.StateInUse(str(data.get("directory", "")), data.get("pid")),
    errors.CannotListen: lambda text, data: errors.CannotListen(str(data.get("address", "")), text),
}
"""How errors that carry data are made from the members of a problem."""

_BY_STATUS: dict[int, type[errors.Caterva2Error]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Unauthorized,
    404: errors.NotFound,
    412: errors.Changed,
    429: errors.Unavailable,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
"""What an answer means that is no problem of ours: that of a proxy, or of another service."""


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return 2.0
    return seconds if math.isfinite(seconds) and seconds >= 0 else 2.0


def error_of(reply: Reply, url: str) -> errors.Caterva2Error:
    """Return the error that an answer of status 400 or more stands for (RFC 9457 problem details).

    Parameters
    ----------
    reply : Reply
    url : str
        Who answered, for the message.
    """
    data = _problem(reply)
    text = str(data.get("detail") or "")
    kind = KINDS.get(str(data.get("type", "")).removeprefix(PROBLEM_PREFIX)) if data else None
    if kind is None:
        kind = _BY_STATUS.get(reply.status, errors.Caterva2Error)
        text = f"{url} answered {reply.status}" + (
            f": {text}" if text else ", not as a Caterva2 service does"
        )
    if "retry_after_s" not in data:
        data = {**data, "retry_after_s": reply.headers.get("Retry-After")}
    try:
        error = _MAKE[kind](text, data) if kind in _MAKE else kind(text)
    except (TypeError, ValueError):
        error = errors.Caterva2Error(text)
    if text:
        error.args = (text,)
    return error


def _problem(reply: Reply) -> dict[str, Any]:
    try:
        data = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
