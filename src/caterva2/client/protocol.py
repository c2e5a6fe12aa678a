"""What to ask and what the answer means: the part of the client that does no I/O.

Functions named ``ask_…`` make a `Request`; what they are answered is read by the function named beside them.
A synchronous transport (`caterva2.client.transport`) sends them; an asynchronous one could do the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from caterva2 import errors
from caterva2.client.records import CacheCheck, Cached, Followed, RootInfo, Row, SourceInfo
from caterva2.model.path import check_root, parse_path
from caterva2.model.pattern import check_pattern
from caterva2.model.selection import Selection

__all__ = [
    "PART_BYTES",
    "Reply",
    "Request",
    "ask_bytes",
    "ask_cache",
    "ask_download",
    "ask_events",
    "ask_follow",
    "ask_followed",
    "ask_info",
    "ask_items",
    "ask_manifest",
    "ask_points",
    "ask_roots",
    "ask_rows",
    "ask_selection",
    "ask_stored",
    "before",
    "dataset_url",
    "read_cached",
    "read_checked",
    "read_followed",
    "read_info",
    "read_json",
    "read_roots",
    "read_rows",
]

PART_BYTES = 64 * 1024 * 1024
"""What is larger, decoded, is asked for in parts of about this size, in bytes."""

NPY = "application/x-npy"
RAW = "application/vnd.caterva2.raw"

PAGE_ROWS = 1000
MAX_QUERY = 2000
"""Longest query of a GET; what is longer goes as the body of a POST."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A request, ready to be sent.

    Attributes
    ----------
    method, target : str
        The target is percent-encoded.
    headers : dict
        Without those of the connection and of authorization.
    body : bytes or None
    idempotent : bool
        It can be sent again if the connection turns out to be dead.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice is the same as once; slices are also asked for by POST."""
        return self.method == "GET" or self.target.startswith("/api/fetch/")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes
    ----------
    status : int
    headers : mapping
        Case-insensitive.
    body : bytes
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


# -- requests --------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _quoted(path: str) -> str:
    return quote(str(parse_path(path)), safe="/")


@lru_cache(maxsize=256)
def _version_query(etag: str) -> str:
    return f"version={quote(etag, safe='')}"


def _named(
    route: str, path: str, etag: str | None, headers: Mapping[str, str], query: str = ""
) -> tuple[str, dict[str, str]]:
    """Return the target and the headers of a request that names a version, if there is one to name.

    It is in the URL for caches in between, which tell versions apart by that, and in ``If-Match`` for
    services that do not look there.
    """
    parts = [query] if query else []
    if etag is None:
        return "?".join([f"{route}{_quoted(path)}", *parts]), dict(headers)
    parts.append(_version_query(etag))
    return f"{route}{_quoted(path)}?{'&'.join(parts)}", {**headers, "If-Match": f'"{etag}"'}


def dataset_url(base: str, path: str, etag: str | None = None) -> str:
    """Return the URL of the stored bytes of a dataset: of one version, or of what is current.

    Raises
    ------
    InvalidPath
    """
    return base + _named("/data/", path, etag, {})[0]


def ask_roots() -> Request:
    """Ask for the roots; see `read_roots`."""
    return Request("GET", "/api/roots")


def ask_rows(root: str, after: str = "", limit: int = PAGE_ROWS) -> Request:
    """Ask for a page of a root's datasets; see `read_rows`.

    Parameters
    ----------
    root : str
    after : str
        Names behind this text, in the order of their characters, are what is asked for; it need not be one.
    limit : int
        Most rows of the page.

    Raises
    ------
    InvalidPath
    """
    query = urlencode({"limit": limit} | ({"after": after} if after else {}))
    return Request("GET", f"/api/catalogue/{check_root(root)}?{query}")


def before(name: str) -> str:
    """Return a text with which `ask_rows` asks for a name, if there is one, and then for those behind it."""
    last = ord(name[-1]) - 1
    return f"{name[:-1]}{chr(last if not 0xD800 <= last < 0xE000 else 0xD7FF)}\U0010ffff"


def ask_info(path: str) -> Request:
    """Ask for the metadata of a dataset; see `read_info`.

    Raises
    ------
    InvalidPath
    """
    return Request("GET", f"/api/info/{_quoted(path)}")


def ask_manifest(path: str) -> Request:
    """Ask for the head of a dataset's manifest, as `caterva2.model.manifest.Head.decode` reads it.

    Raises
    ------
    InvalidPath
    """
    return Request("GET", f"/api/manifest/{_quoted(path)}")


def ask_follow(pattern: str, mode: str | None) -> Request:
    """Ask to follow a pattern in some mode, or with None to stop that.

    Raises
    ------
    InvalidPath
    """
    quoted = quote(check_pattern(pattern), safe="/")
    if mode is None:
        return Request("POST", f"/api/unfollow/{quoted}")
    return Request("POST", f"/api/follow/{quoted}?mode={quote(mode, safe='')}")


def ask_followed() -> Request:
    """Ask for what is followed; see `read_followed`."""
    return Request("GET", "/api/followed")


def ask_sources() -> Request:
    """Ask for the sources of each root; see `read_sources`."""
    return Request("GET", "/api/sources")


def ask_cache(method: str, verb: str, pattern: str | None = None) -> Request:
    """Ask for something about the cache; its answers are JSON.

    Parameters
    ----------
    method : str
    verb : str
        ``cache``, ``fsck``, ``pin``, ``unpin`` or ``pins``.
    pattern : str, optional
        Which datasets; all by default.

    Raises
    ------
    InvalidPath
    """
    below = "" if pattern is None else f"/{quote(check_pattern(pattern), safe='/')}"
    return Request(method, f"/api/{verb}{below}")


def ask_events(pattern: str, last_id: str | None) -> Request:
    """Ask for a stream of events.

    Raises
    ------
    InvalidPath
    """
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    return Request("GET", f"/api/events?{urlencode({'pattern': check_pattern(pattern)})}", headers)


def ask_selection(
    path: str, selection: Selection, etag: str | None, accept: str = NPY, field: str | None = None
) -> Request:
    """Ask for a part of an array, or of a field of it, by default as ``.npy``.

    Raises
    ------
    InvalidPath
    """
    query = f"slice_={','.join(map(str, selection.axes))}" if selection.axes else ""
    if field is not None:
        query = "&".join([*filter(None, [query]), urlencode({"field": field})])
    return Request("GET", *_named("/api/fetch/", path, etag, {"Accept": accept}, query))


def ask_points(path: str, indices: Sequence[Any], etag: str | None, field: str | None = None) -> Request:
    """Ask for elements of an array by lists of indices, as ``.npy``.

    Parameters
    ----------
    path : str
    indices : sequence
        For each dimension an integer, a (nested) list of integers, ``"start:stop:step"``, or None for all.
    etag : str or None
    field : str, optional
        Field of a structured dtype; all of them by default.

    Raises
    ------
    InvalidPath
    """
    asked = {"indices": indices} | ({} if field is None else {"field": field})
    texts = asked | {"indices": json.dumps(indices, separators=(",", ":"))}
    query = urlencode(texts, safe=":,[]")
    if len(query) <= MAX_QUERY:
        return Request("GET", *_named("/api/fetch/", path, etag, {"Accept": NPY}, query))
    target, headers = _named("/api/fetch/", path, etag, {"Accept": NPY})
    body = json.dumps(asked, separators=(",", ":")).encode()
    return Request("POST", target, headers | {"Content-Type": "application/json"}, body)


def ask_items(path: str, start: int, stop: int, etag: str | None) -> Request:
    """Ask for items of a frame, as they are in memory.

    Raises
    ------
    InvalidPath
    """
    return Request("GET", *_named("/api/fetch/", path, etag, {"Accept": RAW}, f"slice_={start}:{stop}"))


def ask_bytes(path: str, start: int, stop: int, etag: str | None) -> Request:
    """Ask for the stored bytes ``start <= offset < stop``; there must be at least one.

    Raises
    ------
    InvalidPath
    """
    return Request("GET", *_named("/data/", path, etag, {"Range": f"bytes={start}-{stop - 1}"}))


def ask_stored(path: str, start: int, stop: int | None, etag: str | None) -> Request:
    """Ask for stored bytes up to an offset or the end; with a negative start, for so many of the last.

    Raises
    ------
    InvalidPath
    """
    if not start and stop is None:
        return Request("GET", *_named("/data/", path, etag, {}))
    last = "" if stop is None else stop - 1
    span = f"bytes={start}" if start < 0 else f"bytes={start}-{last}"
    return Request("GET", *_named("/data/", path, etag, {"Range": span}))


def ask_download(path: str, start: int, etag: str) -> Request:
    """Ask for the stored bytes from an offset to the end.

    Raises
    ------
    InvalidPath
    """
    return Request("GET", *_named("/api/download/", path, etag, {"Range": f"bytes={start}-"}))


# -- answers ---------------------------------------------------------------------------------------


def read_roots(reply: Reply) -> list[RootInfo]:
    """Return the roots, sorted by name."""
    return _understood(lambda: [RootInfo.from_json(root) for _, root in sorted(read_json(reply).items())])


def read_rows(reply: Reply) -> tuple[list[Row], str | None]:
    """Return a page of datasets, and what to ask for the next one with; None on the last."""

    def read() -> tuple[list[Row], str | None]:
        page = read_json(reply)
        return [Row.from_json(row) for row in page["rows"]], page["next"]

    return _understood(read)


def read_info(reply: Reply) -> dict[str, Any]:
    """Return the metadata of a dataset."""

    def read() -> dict[str, Any]:
        info: dict[str, Any] = read_json(reply)
        if info["kind"] not in ("array", "frame", "file") or not isinstance(info["etag"], str):
            raise ValueError("not the metadata of a dataset")
        return info

    return _understood(read)


def read_followed(reply: Reply) -> list[Followed]:
    """Return the datasets that are followed."""
    return _understood(lambda: [Followed.from_json(row) for row in read_json(reply)["datasets"]])


def read_cached(reply: Reply) -> list[Cached]:
    """Return the versions that are cached."""
    return _understood(lambda: [Cached.from_json(row) for row in read_json(reply)["rows"]])


def read_sources(reply: Reply) -> dict[str, list[SourceInfo]]:
    """Return the sources of each root."""

    def read() -> dict[str, list[SourceInfo]]:
        return {
            root: [SourceInfo.from_json(source | {"root": root}) for source in sources]
            for root, sources in sorted(read_json(reply).items())
        }

    return _understood(read)


def read_checked(reply: Reply) -> list[CacheCheck]:
    """Return what a check of the cache found."""
    return _understood(lambda: [CacheCheck.from_json(row) for row in read_json(reply)["rows"]])


def read_json(reply: Reply) -> Any:  # Any: whatever the JSON is
    """Return the JSON of an answer.

    Raises
    ------
    Caterva2Error
        If it is none.
    """
    return _understood(lambda: json.loads(reply.body))


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise errors.Caterva2Error(
            f"the answer cannot be understood ({error!r}): is that the address of a Caterva2 subscriber?"
        ) from error
