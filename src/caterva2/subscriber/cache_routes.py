"""Looking after the cache over HTTP: what is here, pins, dropping, checking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from caterva2.cache.cached import CachedSource
from caterva2.cache.version import CachedVersion
from caterva2.http.listing import json_array, json_response
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath, parse_path
from caterva2.model.pattern import check_pattern, is_glob, matches
from caterva2.subscriber.naming import named
from caterva2.subscriber.pins import Pins
from caterva2.subscriber.routes import Pattern

__all__ = ["cache_router"]


def cache_router(catalogue: Catalogue, cache: CachedSource, pins: Pins) -> APIRouter:
    """Return the routes ``/api/cache``, ``/api/fsck``, ``/api/pin``, ``/api/unpin`` and ``/api/pins``."""
    router = APIRouter(tags=["cache"])

    def chosen_by(pattern: str) -> list[DatasetPath]:
        found = _named(cache, pattern)
        if not found:
            named(catalogue, check_pattern(pattern))  # nothing of it is here; or it is a slip of the pen
        return found

    @router.post("/api/pin/{pattern:path}")
    async def pin(pattern: Pattern) -> dict[str, Any]:
        """Keep what is cached of the datasets that a pattern names, however much space is needed."""
        return {"pattern": pattern, "datasets": pins.pin(pattern)}

    @router.post("/api/unpin/{pattern:path}")
    async def unpin(pattern: Pattern) -> dict[str, Any]:
        """Pin a pattern no more."""
        return {"pattern": pattern, "datasets": pins.unpin(pattern)}

    @router.get("/api/pins")
    async def pinned() -> dict[str, Any]:
        """Return the patterns that are pinned."""
        return {"patterns": pins.patterns}

    @router.get("/api/cache", response_class=Response)
    async def list_all() -> Response:
        """Return what is cached."""
        return await _rows(cache.states(), pins)

    @router.get("/api/cache/{path:path}", response_class=Response)
    async def list_some(path: str) -> Response:
        """Return what is cached of the datasets that a path or a pattern names."""
        chosen = set(chosen_by(path))
        return await _rows([state for state in cache.states() if state.path in chosen], pins)

    @router.delete("/api/cache/{path:path}")
    async def drop(path: str) -> dict[str, Any]:
        """Drop what is cached of the datasets that a path or a pattern names, pinned or not."""
        chosen = chosen_by(path)
        freed = [await cache.drop(dataset) for dataset in chosen]
        return {"path": path, "freed_bytes": sum(freed), "datasets": len(chosen)}

    @router.post("/api/fsck")
    async def check_all() -> dict[str, Any]:
        """Hash all that is cached again, and repair it."""
        return await _check(cache, list(dict.fromkeys(state.path for state in cache.states())))

    @router.post("/api/fsck/{pattern:path}")
    async def check_some(pattern: Pattern) -> dict[str, Any]:
        """Hash what is cached of the datasets that a pattern names again, and repair it."""
        return await _check(cache, chosen_by(pattern))

    return router


def _named(cache: CachedSource, pattern: str) -> list[DatasetPath]:
    """Return the datasets with something here that a path or a pattern names, sorted.

    A name that is cached as it stands is that dataset alone, also if it would do as a glob.
    """
    trimmed = check_pattern(pattern)
    if not is_glob(trimmed):
        parse_path(trimmed, allow_root=True)
    here = dict.fromkeys(state.path for state in cache.states())
    exact = [path for path in here if str(path) == trimmed]
    return exact or [path for path in here if matches(trimmed, str(path))]


async def _rows(states: Sequence[CachedVersion], pins: Pins) -> Response:
    return json_response(await json_array(states, lambda state: _row(state, pins)), members={})


def _row(state: CachedVersion, pins: Pins) -> dict[str, Any]:
    return {**asdict(state), "path": str(state.path), "pinned": state.path in pins}


async def _check(cache: CachedSource, paths: list[DatasetPath]) -> dict[str, Any]:
    found = [row for path in paths for row in await cache.fsck(path)]
    rows = [{**asdict(row), "path": str(row.path)} for row in found]
    names = [name for name in rows[0] if name not in ("path", "etag")] if rows else []
    total = {name: sum(row[name] for row in rows) for name in names}
    return {"sound": all(row.sound for row in found), "total": total, "rows": rows}
