"""What is published: ``/api/roots``, ``/api/list``, ``/api/catalogue``, ``/api/events``."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from caterva2.http.conditional import not_modified
from caterva2.http.dataset import freshness_headers, path_of
from caterva2.http.events import EventStreams
from caterva2.model.catalogue import Catalogue, Entry, Root
from caterva2.model.path import DatasetPath, check_root

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
    last_sorted: dict[str, tuple[str, list[str]]] = {}  # a reader of all pages asks for the same ones again

    def _sorted_names(root: Root) -> list[str]:
        digest, names = last_sorted.get(root.name, ("", []))
        if digest != root.digest:
            names = sorted(root.entries)
            last_sorted[root.name] = (root.digest, names)
        return names

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
        found = [name.removeprefix(directory) for name, _ in catalogue.below(parsed)]
        return JSONResponse(found, headers=freshness_headers(root.freshness))

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
        sorted_names = _sorted_names(found)
        first = bisect_right(sorted_names, after) if after else 0
        page = sorted_names[first : first + limit]
        more = first + limit < len(sorted_names)
        body = {
            "root": root,
            "rows": [row_of(DatasetPath(root, name), found.entries[name]) for name in page],
            "next": page[-1] if page and more else None,
        }
        return JSONResponse(body, headers=headers)

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
