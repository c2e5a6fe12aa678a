"""What a subscriber knows of those it reads from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from caterva2.model.catalogue import Catalogue
from caterva2.subscriber.origins import Origins

__all__ = ["sources_router"]


def sources_router(catalogue: Catalogue, origins: Origins) -> APIRouter:
    """Return the route ``/api/sources``."""
    router = APIRouter(tags=["subscriber"])

    @router.get("/api/sources")
    async def sources() -> dict[str, list[dict[str, Any]]]:
        """Return, for each root, who may be asked for it: its publisher, and further sources."""
        return {
            root.name: [asdict(report) for report in origins.report(root)]
            for root in catalogue.roots.values()
        }

    return router
