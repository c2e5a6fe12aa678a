"""Finding the bus from the settings of a service: the same for all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from caterva2.bus.access import Access
from caterva2.bus.address import BusAddress
from caterva2.bus.connection import ask_broker
from caterva2.config import PublisherSettings, ServiceSettings, SubscriberSettings, Token

__all__ = ["Locate", "existing_bus", "locate", "locate_below", "meeting_place"]


Locate = Callable[[], Awaitable[BusAddress]]


def locate(settings: PublisherSettings | SubscriberSettings) -> Locate:
    """Return what a `Bus` asks where it is: the settings if they say so, else the broker.

    Parameters
    ----------
    settings : PublisherSettings or SubscriberSettings

    Raises
    ------
    ConfigError
        If the credentials cannot be read.
    """
    if not settings.bus:
        return _told_by(settings.broker, settings.token, _access(settings), settings.bus_replicas)
    address = existing_bus(settings)

    async def known() -> BusAddress:
        return address

    return known


def locate_below(settings: SubscriberSettings) -> Locate:
    """Return what the `Bus` of the group below a tier asks where it is: the broker of that group.

    Parameters
    ----------
    settings : SubscriberSettings
        Those with a `republish_to`.

    Raises
    ------
    ConfigError
        If the credentials cannot be read.
    """
    assert settings.republish_to is not None
    access = replace(_access(settings), credentials=settings.republish_bus_credentials)
    access.options("tls://")
    token = settings.republish_token or settings.token
    return _told_by(settings.republish_to, token, access, settings.bus_replicas)


def _told_by(broker: str, token: Token | None, access: Access, replicas: int | None) -> Locate:
    async def ask() -> BusAddress:
        told = await ask_broker(broker, token)
        if told.token is not None:  # a server of the broker's own: nobody else's credentials are for it
            return replace(told, access=replace(access, credentials=None))
        return replace(told, access=access, replicas=replicas)

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
