"""The broker as a service: its parts, in the order in which they start."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from caterva2.broker.routes import broker_router
from caterva2.bus.catalogue import CatalogueView
from caterva2.bus.connection import Bus, BusAddress, close, connect
from caterva2.bus.locate import existing_bus
from caterva2.bus.server import NatsServer
from caterva2.bus.snapshot import Snapshots
from caterva2.config import Address, BrokerSettings
from caterva2.errors import Unavailable
from caterva2.http.app import build_app
from caterva2.http.catalogue import catalogue_router
from caterva2.http.events import EventStreams
from caterva2.http.metrics import Metrics
from caterva2.http.server import Server
from caterva2.http.service import Service
from caterva2.state import StateLock

__all__ = ["BrokerService"]

log = structlog.get_logger(__name__)


class BrokerService(Service):
    """Runs the bus, or points to one that runs already, and shows what is published on it.

    An async context manager: it serves once it is entered.

    Parameters
    ----------
    settings : BrokerSettings

    Attributes
    ----------
    catalogue : Catalogue
        What is published, as seen on the bus.
    nats : NatsServer or None
        The server of our own; None where `settings` name an existing one.

    Raises
    ------
    StateInUse
        On entering: another process owns the state directory.
    BusError
        On entering: nats-server is missing, does not start, or the existing one cannot be used. One that does
        not answer is no error: the broker waits for it.
    CannotListen
        On entering: the address is in use.
    """

    name = "broker"

    def __init__(self, settings: BrokerSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.nats: NatsServer | None = None
        self.bus: Bus

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        stack.enter_context(StateLock(settings.state))
        if settings.bus:
            await _probe(existing_bus(settings))
        else:
            self.nats = await stack.enter_async_context(NatsServer(settings.state / "bus", self._bus_host()))
        self.bus = await stack.enter_async_context(Bus(self._locate))
        view = CatalogueView(self.bus, self.catalogue)
        self._spawn(stack, view.run())
        snapshots = Snapshots(self.catalogue, lambda: view.position)

        metrics = Metrics("broker")
        metrics.add_catalogue(self.catalogue)
        streams = EventStreams(self.catalogue)
        app = build_app(
            title="Caterva2 broker",
            routes=[],
            routers=[broker_router(self._bus_at, snapshots), catalogue_router(self.catalogue, streams)],
            metrics=metrics,
            token=settings.token,
            health=self._health,
        )
        server = await _serve(
            stack, lambda at: Server(app, at, streams.stop), settings.listen, settings.state
        )
        metrics.add_server(server, streams)
        stack.enter_context(metrics.watch_loop(server, streams))
        self.address = server.address
        self._spawn(stack, server.wait())

    def _bus_host(self) -> str:
        host = self.settings.listen.host
        return "127.0.0.1" if host == "localhost" else host

    async def _locate(self) -> BusAddress:
        return existing_bus(self.settings) if self.nats is None else self.nats.address

    def _bus_at(self, host: str) -> BusAddress:
        """Return where the bus is for somebody who reached us at a host."""
        if self.nats is None:
            return existing_bus(self.settings)
        if not host or not _is_unspecified(self.settings.listen.host):
            return self.nats.address
        return self.nats.address_at(str(Address(host, 0)).rpartition(":")[0])

    def _health(self) -> dict[str, Any]:
        return {
            "status": "ok" if self.bus.connected else "degraded",
            "bus": "connected" if self.bus.connected else "unreachable",
            "problem": self.bus.problem,
            "roots": {root.name: root.state for root in self.catalogue.roots.values()},
        }


async def _probe(address: BusAddress) -> None:
    """Find out at once whether an existing NATS can be used; one that does not answer may come."""
    try:
        await close(await connect(address))
    except Unavailable as error:
        log.warning("the bus does not answer, will keep trying", reason=str(error))


async def _serve(
    stack: AsyncExitStack, make: Callable[[Address], Server], listen: Address, state: Path
) -> Server:
    """Listen; where any port will do, on the one of last time, so that others find us after a restart."""
    kept = state / "http-port"
    if listen.port == 0:
        with contextlib.suppress(OSError, ValueError):
            return await stack.enter_async_context(make(Address(listen.host, int(kept.read_text()))))
    server = await stack.enter_async_context(make(listen))
    if listen.port == 0:
        kept.write_text(str(server.address.port))
    return server


def _is_unspecified(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
