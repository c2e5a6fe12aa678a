"""Conditional requests, RFC 9110 section 13: which version the client knows or insists on."""

from __future__ import annotations

from starlette.datastructures import Headers

from caterva2.errors import BadRequest

__all__ = ["honours_range", "not_modified", "wanted_etag"]


def wanted_etag(headers: Headers) -> str | None:
    """Return the one version that ``If-Match`` insists on; None if any will do.

    Raises
    ------
    BadRequest
        If it names several versions, or is malformed: a version of ours is one strong etag.
    """
    value = headers.get("if-match")
    if value is None or value.strip() == "*":
        return None
    text = value.strip()
    if len(text) < 2 or text[0] != '"' or text[-1] != '"' or '"' in text[1:-1]:
        raise BadRequest(f'If-Match: {value} is not one strong etag, such as "0123abcd"')
    return text[1:-1]


def not_modified(headers: Headers, etag: str) -> bool:
    """Return whether ``If-None-Match`` names the version (weak comparison, as for GET)."""
    value = headers.get("if-none-match")
    if value is None:
        return False
    named = [part.strip().removeprefix("W/") for part in value.split(",")]
    return "*" in named or f'"{etag}"' in named


def honours_range(headers: Headers, etag: str) -> bool:
    """Return whether ``Range`` counts: there is no ``If-Range``, or it names the version (strongly)."""
    value = headers.get("if-range")
    return value is None or value.strip() == f'"{etag}"'
