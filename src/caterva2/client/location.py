"""Locations: the texts that name a subscriber, a root, a directory or a dataset for `caterva2.open`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from caterva2.errors import InvalidPath
from caterva2.model.path import parse_path

__all__ = ["DEFAULT_PORT", "Location", "parse_location"]

DEFAULT_PORT = 8002
"""Where ``caterva2://host/…`` is looked for: the port that a subscriber listens on by default."""

_SCHEMES = {"http": "http", "https": "https", "caterva2": "http", "caterva2s": "https"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DATA = "/data/"


@dataclass(frozen=True, slots=True)
class Location:
    """What a text names.

    Attributes
    ----------
    subscriber : str or None
        URL of the subscriber, without a slash at the end; None for the one that is configured.
    path : str
        ``root/dir/name``, a directory or a root, decoded; empty for all roots.
    etag : str or None
        Version of a dataset; None for the current one.
    """

    subscriber: str | None
    path: str
    etag: str | None = None


def parse_location(text: str) -> Location:
    """Parse a location.

    Parameters
    ----------
    text : str
        One of

        - ``http(s)://host:port/prefix/data/foo/x.b2nd``, as `Client.url` and ``cat2 url`` give it, or without
          ``/data/…`` all roots of that subscriber;
        - ``caterva2://host:port/foo/x.b2nd`` (HTTP, port `DEFAULT_PORT` unless said) and ``caterva2s://…``
          (HTTPS, port 443);
        - ``caterva2:///foo/x.b2nd`` or plain ``foo/x.b2nd``: at the subscriber that is configured.

        URLs are percent-decoded, and may end with ``?version=ETAG``; plain paths are taken as they stand.

    Raises
    ------
    InvalidPath
        If it is none of these, or has a user or a password.
    """
    scheme = _SCHEME.match(text)
    if not scheme:
        return Location(None, _path(text))
    if scheme[1].lower() not in _SCHEMES:
        raise InvalidPath(f"{text!r} cannot be opened: write caterva2://, http://, https:// or a plain path")
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises if it is no port
    except ValueError as error:
        raise InvalidPath(f"{text!r} is not a URL: {error}") from error
    if "@" in parts.netloc:
        raise InvalidPath("a URL cannot have a user or a password: give a token instead")
    if parts.fragment:
        raise InvalidPath(f"{text!r} has a fragment: write '#' in a name as %23")
    before, path = _split_path(parts)
    etag = _version(text, parts.query)
    if etag is not None and "/" not in path:
        raise InvalidPath(f"{text!r} names the version of something that is no dataset")
    return Location(_subscriber(text, parts, before), path, etag)


def _split_path(parts: SplitResult) -> tuple[str, str]:
    """Return the path of the service, and that of the dataset on it."""
    if parts.scheme.startswith("caterva2"):
        return "", _path(unquote(parts.path[1:]))
    before, data, after = f"{parts.path}/".partition(_DATA)
    return before.rstrip("/"), _path(unquote(after)) if data else ""


def _path(text: str) -> str:
    return str(parse_path(trimmed, allow_root=True)) if (trimmed := text.rstrip("/")) else ""


def _version(text: str, query: str) -> str | None:
    if not query:
        return None
    name, _, value = query.partition("=")
    if name != "version" or not value or "&" in value:
        raise InvalidPath(f"{text!r} has a query other than ?version=ETAG: write '?' in a name as %3F")
    return unquote(value)


def _subscriber(text: str, parts: SplitResult, before: str) -> str | None:
    if not parts.hostname:
        if parts.scheme != "caterva2" or parts.netloc:
            raise InvalidPath(f"{text!r} names no host")
        return None
    port = f":{DEFAULT_PORT}" if parts.scheme == "caterva2" and parts.port is None else ""
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc.rstrip(':')}{port}{before}"
