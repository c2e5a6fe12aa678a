"""Which version the client knows or insists on: conditional requests (RFC 9110 section 13), and URLs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from starlette.datastructures import Headers, QueryParams

from caterva2.errors import BadRequest

__all__ = ["honours_range", "named_version", "not_modified", "wanted_etags"]

_ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\Z')
_NAMED = re.compile(r"[\x21\x23-\x7e]{1,256}")
_LIST = re.compile(r'(?:[^",]|"[^"]*"|")+')


def wanted_etags(headers: Headers) -> list[str] | None:
    """Return the versions that ``If-Match`` insists on; None if any will do.

    A weak etag is returned with its ``W/``: it matches no version, as the comparison is strong.

    Raises
    ------
    BadRequest
        If it is malformed.
    """
    value = headers.get("if-match")
    if value is None or value.strip() == "*":
        return None
    return list(_parse_etags(tuple(headers.getlist("if-match"))))


@lru_cache(maxsize=256)
def _parse_etags(lines: tuple[str, ...]) -> tuple[str, ...]:
    etags = []
    for text in _elements(lines):
        match = _ETAG.match(text)
        if not match:
            raise BadRequest(f'If-Match: {lines[0]} is not a list of etags, such as "0123abcd"')
        etags.append((match[1] or "") + match[2])
    if not etags:
        raise BadRequest('If-Match is empty: give an etag in quotes, such as "0123abcd"')
    return tuple(etags)


def named_version(query: QueryParams) -> str | None:
    """Return the version that the URL names, as ``version=ETAG``; None if it names none.

    Raises
    ------
    BadRequest
        If it is no etag, or named twice.
    """
    named = query.getlist("version")
    if not named:
        return None
    if len(named) > 1 or not _NAMED.fullmatch(named[0]):
        raise BadRequest("version= must name one etag, without quotes, such as version=0123abcd")
    return named[0]


def not_modified(headers: Headers, etag: str) -> bool:
    """Return whether ``If-None-Match`` names the version (weak comparison, as for GET)."""
    if "if-none-match" not in headers:
        return False
    named = [text.removeprefix("W/") for text in _elements(headers.getlist("if-none-match"))]
    return "*" in named or f'"{etag}"' in named


def honours_range(headers: Headers, etag: str) -> bool:
    """Return whether ``Range`` counts: there is no ``If-Range``, or it names the version (strongly)."""
    value = headers.get("if-range")
    return value is None or value.strip() == f'"{etag}"'


def _elements(lines: Sequence[str]) -> list[str]:
    """Return the elements of a header that is a list, however many lines it takes."""
    found = (text for line in lines for text in _LIST.findall(line))
    return [text.strip() for text in found if text.strip()]
