"""What a subscriber answers beyond what every service does: follows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from caterva2.cache.cached import CachedSource
from caterva2.model.catalogue import Catalogue
from caterva2.model.pattern import FollowMode
from caterva2.subscriber.follow import Follower

__all__ = ["Pattern", "subscriber_router"]

Pattern = Annotated[str, Path(description="A dataset, a root or a glob: foo, foo/x.b2nd, foo/dir1/*")]
"""The part of a route that names datasets."""

HowFollowed = Annotated[
    FollowMode, Query(description="Refresh at once: the metadata, what was cached before too, or everything")
]


def subscriber_router(catalogue: Catalogue, follower: Follower, cache: CachedSource) -> APIRouter:
    """Return the routes ``/api/follow``, ``/api/unfollow`` and ``/api/followed``."""
    router = APIRouter(tags=["subscriber"])

    @router.post("/api/follow/{pattern:path}")
    async def follow(pattern: Pattern, mode: HowFollowed = "cached") -> dict[str, Any]:
        """Keep what a pattern names current here: metadata, what is cached, or all of it."""
        return {"pattern": pattern, "datasets": follower.follow(pattern, mode), "mode": mode}

    @router.post("/api/unfollow/{pattern:path}")
    async def unfollow(pattern: Pattern) -> dict[str, Any]:
        """Stop following a pattern. What is cached stays until its space is needed."""
        return {"pattern": pattern, "datasets": follower.unfollow(pattern)}

    @router.get("/api/followed")
    async def followed() -> dict[str, Any]:
        """Return the patterns that are followed, and the state of each dataset they name."""
        rows = []
        for path in follower.followed():
            entry, state = catalogue.entry(path), cache.state(path)
            rows.append(
                {
                    "path": str(path),
                    "etag": entry.etag,
                    "size": entry.size,
                    "cached_bytes": state.cached_bytes,
                    "complete": state.complete,
                    "mode": follower.mode(path),
                    **catalogue.root(path.root).freshness.to_json(),
                }
            )
        return {"patterns": list(follower.patterns), "modes": follower.patterns, "datasets": rows}

    return router
