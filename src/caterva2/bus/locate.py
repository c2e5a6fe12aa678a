"""Finding the bus from the settings of a service: the same for all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from caterva2.bus.access import Access
from caterva2.bus.address import BusAddress
from caterva2.bus.connection import ask_broker
from caterva2.config import PublisherSettings, ServiceSettings, SubscriberSettings

__all__ = ["existing_bus", "locate", "meeting_place"]


def locate(settings: PublisherSettings | SubscriberSettings) -> Callable[[], Awaitable[BusAddress]]:
    """Return what a `Bus` asks where it is: the settings if they say so, else the broker.

    Parameters
    ----------
    settings : PublisherSettings or SubscriberSettings

    Raises
    ------
    ConfigError
        If the credentials cannot be read.
    """
    access = _access(settings)

    async def ask() -> BusAddress:
        if settings.bus:
            return BusAddress(settings.bus, access=access, replicas=settings.bus_replicas)
        told = await ask_broker(settings.broker, settings.token)
        if told.token is not None:  # a server of the broker's own: nobody else's credentials are for it
            return replace(told, access=replace(access, credentials=None))
        return replace(told, access=access, replicas=settings.bus_replicas)

    return ask


def existing_bus(settings: ServiceSettings) -> BusAddress:
    """Return where the NATS is that the settings name, and how to use it.

    Raises
    ------
    ConfigError
        If the credentials cannot be read.
    """
    return BusAddress(settings.bus, access=_access(settings), replicas=settings.bus_replicas)


def meeting_place(settings: PublisherSettings | SubscriberSettings) -> str:
    """Return the URL where a service meets the others of its group."""
    return settings.bus[0] if settings.bus else settings.broker


def _access(settings: ServiceSettings) -> Access:
    access = Access(settings.bus_credentials, settings.bus_ca, settings.bus_certificate, settings.bus_key)
    access.options("tls://")  # whether they can be read is said at the start, not when a server asks
    return access
