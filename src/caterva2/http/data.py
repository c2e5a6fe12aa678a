"""The routes on datasets, the same at a publisher and a subscriber."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgpack
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from caterva2.errors import BadRequest, NotFound
from caterva2.http.bodies import stored_bytes
from caterva2.http.catalogue import iso_time
from caterva2.http.conditional import not_modified
from caterva2.http.dataset import DataService, headers_of, here_of, lasting_headers, on_version
from caterva2.http.slices import fetch, query_of
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.source.planner import explaining

__all__ = ["MANIFEST_TYPE", "data_routes", "encode_pages", "parse_known", "parse_page_numbers"]

MANIFEST_TYPE = "application/vnd.caterva2.manifest+msgpack"

MAX_PAGES = 64
"""Most pages of a manifest in one request."""

Answer = Callable[[Request, Head], Awaitable[Response]]


def data_routes(service: DataService) -> list[Route]:
    """Return the routes on datasets: ``/data`` and ``/api/`` info, manifest, fetch, chunk, download.

    Parameters
    ----------
    service : DataService
        Its catalogue, source and reader answer.
    """

    async def info(request: Request, head: Head) -> Response:
        headers = headers_of(service, head)
        if not_modified(request.headers, head.etag):
            return Response(status_code=304, headers=headers)
        now = {
            **service.catalogue.root(head.path.root).freshness.to_json(),
            **service.local_state(head.path),
        }
        body = _lasting_info(head)[:-1] + b"," + _json(now)[1:]  # two objects as one
        return Response(body, headers=headers, media_type="application/json")

    async def manifest(request: Request, head: Head) -> Response:
        headers = lasting_headers(service, request, head)
        if not_modified(request.headers, head.etag):
            return Response(status_code=304, headers=headers)
        numbers = request.query_params.get("pages")
        if numbers is None:
            body = head.encode()
        else:
            asked = parse_page_numbers(numbers, head)
            known = parse_known(request.query_params.get("known"), len(asked))
            pages = await (here_of(service, request) or service.source).pages(head, asked)
            body = encode_pages(pages, known)
        return Response(body, headers=headers, media_type=MANIFEST_TYPE)

    async def data(request: Request, head: Head) -> Response:
        return await stored_bytes(service, request, head)

    async def download(request: Request, head: Head) -> Response:
        return await stored_bytes(service, request, head, attach=True)

    async def part(request: Request) -> Response:
        query = await query_of(request)  # once: the body is gone when another version is tried
        with explaining() as explanation:
            response = await on_version(
                service, request, "/api/fetch/", lambda head: fetch(service, request, head, query)
            )
        response.raw_headers.append((b"server-timing", explanation.server_timing().encode()))
        return response

    async def chunk(request: Request, head: Head) -> Response:
        if head.kind == "file":
            raise NotFound(str(head.path), f"{head.path} is a file: it has no chunks")
        text = request.query_params.get("nchunk", "")
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise BadRequest(f"nchunk={text!r} is not the number of a chunk")
        headers = lasting_headers(service, request, head)
        if not_modified(request.headers, head.etag):
            return Response(status_code=304, headers=headers)
        body = await service.reader.chunk(head, int(text))
        return Response(body, headers=headers, media_type="application/octet-stream")

    return [
        _route(service, "/api/info/", info),
        _route(service, "/api/manifest/", manifest),
        _route(service, "/data/", data),
        _route(service, "/api/download/", download),
        Route("/api/fetch/{path:path}", part, methods=["GET", "POST"]),
        _route(service, "/api/chunk/", chunk),
    ]


def _lasting_info(head: Head) -> bytes:
    """Return what ``/api/info`` says of a version that does not change, as JSON; made once."""
    known: bytes | None = head.__dict__.get("_info")
    if known is None:
        known = _json(
            {
                **head.meta,
                "path": str(head.path),
                "kind": head.kind,
                "size": head.size,
                "etag": head.etag,
                "generation": head.generation,
                "mtime": iso_time(head.mtime_ns / 1e9),
            }
        )
        head.__dict__["_info"] = known  # as cached_property does it: a head never changes
    return known


def _json(members: dict[str, Any]) -> bytes:
    return bytes(JSONResponse(members).body)


def _route(service: DataService, prefix: str, answer: Answer) -> Route:
    async def endpoint(request: Request) -> Response:
        return await on_version(service, request, prefix, lambda head: answer(request, head))

    return Route(f"{prefix}{{path:path}}", endpoint, methods=["GET"])


def parse_page_numbers(text: str, head: Head) -> list[int]:
    """Parse the numbers of pages: ``3``, ``3-7``, ``1,4,7-9``.

    Raises
    ------
    BadRequest
        If the text is malformed, or names more than `MAX_PAGES`.
    NotFound
        If there is no such page.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if not match:
            raise BadRequest(f"pages={text!r} is not a list of page numbers, such as 1,4,7-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= MAX_PAGES:
            raise BadRequest(f"pages={part}: at most {MAX_PAGES} ascending pages in one request")
        numbers.extend(range(first, last + 1))
    if len(numbers) > MAX_PAGES:
        raise BadRequest(f"{len(numbers)} pages in one request, the limit is {MAX_PAGES}")
    if any(number >= head.npages for number in numbers):
        raise NotFound(str(head.path), f"the manifest of {head.path} has {head.npages} pages, counted from 0")
    return numbers


def encode_pages(pages: Sequence[Page], known: Sequence[bytes | None]) -> bytes:
    """Return the body of an answer with pages, given what is known of each; see `parse_known`."""
    return bytes(
        msgpack.packb(
            [
                page.encode_unchanged() if page.content == content else page.encode()
                for page, content in zip(pages, known, strict=True)
            ]
        )
    )


def parse_known(text: str | None, count: int) -> list[bytes | None]:
    """Parse what is known of pages already: for each page asked for, its `Page.content` in hex, or nothing.

    Raises
    ------
    BadRequest
        If the text is malformed, or is not of as many pages.
    """
    if text is None:
        return [None] * count
    parts = text.split(",")
    if len(parts) != count or not all(re.fullmatch(r"([0-9a-f]{32})?", part) for part in parts):
        raise BadRequest(f"known={text[:80]!r} is not, for each of {count} pages, a digest in hex or nothing")
    return [bytes.fromhex(part) or None for part in parts]
