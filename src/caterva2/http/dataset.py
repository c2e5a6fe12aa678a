"""What all routes on a dataset share: its path, its version, the headers that describe it."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from caterva2.cache.here import Here
from caterva2.errors import Changed, InvalidPath
from caterva2.http.conditional import named_version, wanted_etags
from caterva2.model.catalogue import Catalogue, Event
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath, parse_path
from caterva2.model.root import Entry, Freshness
from caterva2.source.protocol import Source
from caterva2.source.slices import Reader

__all__ = [
    "CHANGED_WAIT_S",
    "DataService",
    "freshness_headers",
    "headers_of",
    "here_of",
    "lasting_headers",
    "on_version",
    "path_of",
]

CHANGED_WAIT_S = 2.0
"""How long a request that named no version waits for the next one while a file is replaced, in seconds."""

LASTS_S = 365 * 24 * 3600
"""How long an answer may be kept whose URL names its version, in seconds: there is no other answer to it."""

T = TypeVar("T")

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class DataService(Protocol):
    """What the data routes need of a service."""

    @property
    def catalogue(self) -> Catalogue:
        """What is published, as this service knows it."""
        ...

    @property
    def source(self) -> Source:
        """Where its bytes come from."""
        ...

    @property
    def reader(self) -> Reader:
        """Reads slices through the source."""
        ...

    @property
    def here(self) -> Here | None:
        """What it can serve without asking anybody; None if that is everything."""
        ...

    def local_state(self, path: DatasetPath) -> dict[str, Any]:
        """Return further members of ``/api/info``: JSON values."""
        ...


def path_of(request: Request, prefix: str, *, allow_root: bool = False) -> DatasetPath:
    """Return the dataset that a request names.

    It is taken from the path as it was sent: ``%2e%2e``, invalid escapes and invalid UTF-8 are seen as what
    they are.

    Parameters
    ----------
    request : Request
    prefix : str
        What the path begins with.
    allow_root : bool
        The path may name a root or a directory, and end with ``/``.

    Raises
    ------
    InvalidPath
    """
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return _parsed(raw, prefix, allow_root)


@lru_cache(maxsize=1024)
def _parsed(raw: bytes, prefix: str, allow_root: bool) -> DatasetPath:
    if _BAD_ESCAPE.search(raw):
        raise InvalidPath("the path has a '%' that no two hexadecimal digits follow")
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise InvalidPath("the path is not valid UTF-8") from error
    if not text.startswith(prefix):
        raise InvalidPath(f"{text!r} does not begin with {prefix}")
    name = text[len(prefix) :]
    return parse_path(name.rstrip("/") if allow_root else name, allow_root=allow_root)


def here_of(service: DataService, request: Request) -> Here | None:
    """Return what is here, if the client wants nobody else to be asked (RFC 9111, section 5.2.1.7).

    Returns
    -------
    Here or None
        None if `DataService.source` is to answer.
    """
    if "cache-control" not in request.headers:
        return None
    directives = ",".join(request.headers.getlist("cache-control")).lower().split(",")
    return service.here if "only-if-cached" in map(str.strip, directives) else None


async def on_version(
    service: DataService, request: Request, prefix: str, use: Callable[[Head], Awaitable[T]]
) -> T:
    """Answer a request with one version of a dataset.

    If the client named one (``If-Match``, or ``version`` in the URL), it is that or an error. If not, and the
    file is replaced while it is read, `use` is called again with the next version, as soon as that is known.

    Parameters
    ----------
    service : DataService
    request : Request
    prefix : str
        What the path begins with.
    use : callable
        Makes the answer from a version.

    Raises
    ------
    NotFound, InvalidPath, BadRequest, Unavailable, NotCached
    Changed
        If the version named is gone, or no next one is known within `CHANGED_WAIT_S`.
    """
    path = path_of(request, prefix)
    insisted = _insisted(request, path)
    source = here_of(service, request) or service.source
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CHANGED_WAIT_S
    while True:
        entry = service.catalogue.entry(path)
        wanted = None if insisted is None else _choose(insisted, entry)
        try:
            return await use(await source.head(path, wanted))
        except Changed:
            left = deadline - loop.time()
            if wanted is not None or left <= 0:
                raise
            await _next_version(service.catalogue, path, entry, left)


def _insisted(request: Request, path: DatasetPath) -> list[str] | None:
    """Return the versions that the client will have; None if any will do."""
    named = named_version(request.query_params)
    etags = wanted_etags(request.headers)
    if named is None:
        return etags
    if etags is not None and named not in etags:
        raise Changed(str(path), etags[0], named)  # there is no other behind this URL
    return [named]


def _choose(etags: list[str], entry: Entry) -> str:
    """Return which of several versions to look for: the current one, if it is among them."""
    return entry.etag if entry.etag in etags else etags[0]


async def _next_version(catalogue: Catalogue, path: DatasetPath, old: Entry, timeout_s: float) -> None:
    """Wait until a dataset has another entry than an old one, for a while."""
    changed = asyncio.Event()

    def on_event(event: Event, _: Entry | None) -> None:
        if event.path == str(path):
            changed.set()

    undo = catalogue.listen(on_event)
    try:
        if catalogue.root(path.root).entries.get(path.name) == old:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
    except TimeoutError:
        pass  # the caller tries once more, and then says that it changed
    finally:
        undo()


def freshness_headers(freshness: Freshness) -> dict[str, str]:
    """Return the headers that say whether an answer is confirmed to be current, and since when it is not."""
    headers: dict[str, str] = {"X-Caterva2-Freshness": freshness.word}
    if not freshness.fresh and math.isfinite(freshness.age_s):
        headers["Age"] = str(int(freshness.age_s))
    return headers


def headers_of(service: DataService, head: Head) -> dict[str, str]:
    """Return the headers that describe a version: its name, order, time and freshness."""
    freshness = service.catalogue.root(head.path.root).freshness
    return _describing(head, "private, no-cache") | freshness_headers(freshness)


def _describing(head: Head, cache_control: str) -> dict[str, str]:
    return {
        "ETag": f'"{head.etag}"',
        "Last-Modified": _http_date(head.mtime_ns),
        "Cache-Control": cache_control,
        "X-Caterva2-Generation": str(head.generation),
    }


@lru_cache(maxsize=4096)
def _http_date(mtime_ns: int) -> str:
    return formatdate(mtime_ns / 1e9, usegmt=True)


def lasting_headers(service: DataService, request: Request, head: Head) -> dict[str, str]:
    """Return what `headers_of` does; for a URL that names the version, that the answer can be kept for good.

    Such an answer says nothing of freshness, which changes. Shared caches may keep it (RFC 8246) unless who
    asked had to say who they are (RFC 9111 section 3.5).
    """
    if named_version(request.query_params) is None:
        return headers_of(service, head)
    named = "authorization" in request.headers or "cookie" in request.headers
    audience = "private" if named else "public"
    return _describing(head, f"{audience}, max-age={LASTS_S}, immutable")
