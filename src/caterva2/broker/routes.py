"""The broker's own routes: where the bus is, and all that it has told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from caterva2.bus.address import BusAddress
from caterva2.bus.snapshot import Snapshots

__all__ = ["broker_router"]


def broker_router(bus_at: Callable[[str], BusAddress], snapshots: Snapshots) -> APIRouter:
    """Return the routes of a broker.

    Parameters
    ----------
    bus_at : callable
        Returns where the bus is for somebody who reaches the broker by a host name or address.
    snapshots : Snapshots
    """
    router = APIRouter(tags=["bus"])

    @router.get("/api/bus")
    async def bus(request: Request) -> Response:
        """Return where the bus is, and its token. They are good until the broker says otherwise."""
        answer: dict[str, Any] = bus_at(request.url.hostname or "").to_json()
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    @router.get("/api/snapshot")
    async def snapshot() -> Response:
        """Return all that is on the bus, for a new subscriber; 503 while that is not known."""
        headers = {"Cache-Control": "no-store"}
        return Response(await snapshots.body(), media_type="application/jsonl", headers=headers)

    return router
