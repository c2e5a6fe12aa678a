"""What is published: ``/api/roots``, ``/api/list``, ``/api/catalogue``, ``/api/events``."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from caterva2.http.conditional import not_modified
from caterva2.http.dataset import freshness_headers, path_of
from caterva2.http.events import EventStreams
from caterva2.http.listing import json_array, json_response
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath, check_root
from caterva2.model.root import Entry

__all__ = ["catalogue_router", "iso_time", "row_of"]

PAGE_ROWS = 1000
MAX_PAGE_ROWS = 10_000

_FIRST_TIME, _LAST_TIME = -62_135_596_800, 253_402_300_799  # years 1 to 9999


def iso_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, to the microsecond; one that has no date as the nearest that has."""
    return datetime.fromtimestamp(min(max(seconds, _FIRST_TIME), _LAST_TIME), UTC).isoformat()


def row_of(path: DatasetPath, entry: Entry) -> dict[str, Any]:
    """Return what listings say of a dataset."""
    return {
        "path": str(path),
        "kind": entry.kind,
        "size": entry.size,
        "shape": entry.shape,
        "dtype": entry.dtype,
        "etag": entry.etag,
        "generation": entry.generation,
        "mtime": iso_time(entry.mtime),
        "error": entry.error,
    }


def catalogue_router(catalogue: Catalogue, streams: EventStreams | None = None) -> APIRouter:
    """Return the routes over a catalogue.

    Parameters
    ----------
    catalogue : Catalogue
    streams : EventStreams, optional
        The service ends them when it stops; by default they end with their clients only.
    """
    router = APIRouter(tags=["catalogue"])
    events = streams or EventStreams(catalogue)

    @router.get("/api/roots")
    async def roots() -> dict[str, dict[str, Any]]:
        """Return the roots by name."""
        return {
            root.name: {
                "name": root.name,
                "state": root.state,
                "publisher": root.url or None,
                "datasets": len(root.entries),
                "bytes": root.nbytes,
                "title": root.title,
                "behind": len(root.behind),
                "reset_at": iso_time(root.reset_at / 1000) if root.reset_at else None,
                **root.freshness.to_json(),
                "tiers": len(root.via),
            }
            for root in sorted(catalogue.roots.values(), key=lambda root: root.name)
        }

    @router.get("/api/list/{path:path}", response_model=list[str])
    async def names(request: Request, path: str) -> Response:  # noqa: ARG001  # for the description
        """Return the names of the datasets below a root or a directory, relative to it.

        Of a dataset it is its own, without the directory.
        """
        parsed = path_of(request, "/api/list/", allow_root=True)
        directory = f"{parsed.name}/" if parsed.name else ""
        root = catalogue.root(parsed.root)
        if parsed.name in root.entries:
            directory = directory[: directory.rstrip("/").rfind("/") + 1]
        headers = freshness_headers(root.freshness)
        found = [name for name, _ in catalogue.below(parsed)]
        encoded = await json_array(found, lambda name: name.removeprefix(directory))
        return json_response(encoded, headers=headers)

    @router.get("/api/catalogue/{root}")
    async def rows(
        request: Request,
        root: str,
        after: Annotated[str, Query(max_length=2000)] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE_ROWS)] = PAGE_ROWS,
    ) -> Response:
        """Return a page of a root's datasets with their metadata, sorted by name.

        ``next`` is what to give as ``after`` for the page that follows; null on the last one.
        """
        found = catalogue.root(check_root(root))
        headers = {"ETag": f'"{found.digest}"', "Cache-Control": "no-cache"}
        headers |= freshness_headers(found.freshness)
        if not_modified(request.headers, found.digest):
            return Response(status_code=304, headers=headers)
        first = bisect_right(found.names, after) if after else 0
        page = found.names[first : first + limit]
        more = first + limit < len(found.names)
        entries = [(DatasetPath(root, name), found.entries[name]) for name in page]  # of one moment
        encoded = await json_array(entries, lambda row: row_of(*row))
        members = {"root": root, "next": page[-1] if page and more else None}
        return json_response(encoded, members=members, headers=headers)

    @router.get("/api/events", response_class=Response)
    async def listen(
        request: Request,
        pattern: Annotated[str, Query(max_length=1024)] = "*",
        last_event_id: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Response:
        """Stream differences as server-sent events; resumes behind ``Last-Event-ID``."""
        last = request.headers.get("last-event-id") or last_event_id
        return events.response(pattern, last)

    return router
