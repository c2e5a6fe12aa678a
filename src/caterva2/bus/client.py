"""The client of NATS as we use it, and one connection of it to one server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoServersError

from caterva2.bus.address import BusAddress, without_secrets
from caterva2.errors import BusError
from caterva2.turns import Turn

__all__ = ["CONNECT_S", "BusClient", "close", "denies", "open_client"]

CONNECT_S = 3.0
"""How long a connection may take to be made, in seconds."""

CLOSE_S = 0.5
"""How long a connection may take to be closed, in seconds; one that broke in its TLS handshake never is."""

PING_S = 5
"""Pause between pings; a connection that misses two of them is dead. In seconds."""

PENDING_BYTES = 32 << 20
"""How much may wait to be sent, in bytes."""

_DENIED = re.compile(r"permissions violation for (?:publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)
_API = re.compile(r"^\$js\.[^.]+\.api\.")

log = structlog.get_logger(__name__)


class NoTls(BusError):
    """A server does not speak TLS, and is to."""


class BusClient(Client):
    """The client of NATS; it insists on TLS where that is wanted, and knows what it was denied.

    A server denies without answering: who asked waits in vain, and the reason comes aside.

    Parameters
    ----------
    tls : bool
        Show nothing to a server that does not speak TLS.
    """

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__()
        self._insists_on_tls = tls
        self._turn = Turn()
        self._denied: set[str] = set()

    def _connect_command(self) -> bytes:
        # The client takes it from the server whether to speak TLS: anybody on the way could say no
        if self._insists_on_tls and not self.speaks_tls:
            raise NoTls("it does not speak TLS, which tls:// and bus_ca ask for")
        return super()._connect_command()

    async def _process_msg(self, *message: Any, **more: Any) -> None:  # Any: the library's own
        # It takes in all that has arrived at once, however much that is
        await super()._process_msg(*message, **more)
        await self._turn.give()

    def take_error(self, error: Exception) -> None:
        """Take in what the server says beside its answers."""
        found = _DENIED.search(str(error))
        if found is None:
            return
        subject = _without_domain(found[1].lower())  # as it is told
        if subject in self._denied:
            return
        self._denied.add(subject)
        log.warning("permission denied on the bus: see cat2 bus check --permissions", subject=found[1])

    @property
    def speaks_tls(self) -> bool:
        """Whether what is sent to the server is encrypted."""
        return bool(self._server_info.get("tls_required"))

    @property
    def wants_certificate(self) -> bool:
        """Whether the server asks for a certificate of ours."""
        return bool(self._server_info.get("tls_verify"))

    @property
    def denied(self) -> frozenset[str]:
        """The subjects that this connection may not use, of those that it tried; in lower case."""
        return frozenset(self._denied)


def _without_domain(subject: str) -> str:
    """Return the subject that was used, where a leaf node made another of it."""
    return _API.sub("" if "api.$kv." in subject else "$js.api.", subject)


def denies(client: Client, subject: str) -> bool:
    """Return whether a server said that a connection may not use a subject."""
    return isinstance(client, BusClient) and subject.lower() in client.denied


async def open_client(
    url: str, address: BusAddress, on_closed: Callable[[], None] | None = None
) -> BusClient:
    """Connect to one server of a bus, whatever it has.

    Raises
    ------
    BusError
        If it answers but cannot be used.
    ConfigError
        If the credentials cannot be read.
    NatsError, OSError, TimeoutError, ValueError
        If it does not answer.
    """
    client = BusClient(tls=address.access.insists_on_tls(url))
    options = {"token": None if address.token is None else str(address.token), **address.access.options(url)}
    last_error: Exception | None = None

    async def closed() -> None:
        if on_closed is not None:
            on_closed()

    async def on_error(error: Exception) -> None:
        nonlocal last_error
        last_error = error
        log.debug("bus error", error=without_secrets(repr(error)))
        client.take_error(error)

    try:
        async with asyncio.timeout(CONNECT_S):
            await client.connect(
                url,
                **options,
                name="caterva2",
                error_cb=on_error,
                closed_cb=closed,
                allow_reconnect=False,  # `Bus` does it, since server and token may be others by then
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_S,  # type: ignore[arg-type]  # annotated int, used as a float
                ping_interval=PING_S,
                max_outstanding_pings=2,
                pending_size=PENDING_BYTES,
            )
    except BaseException as error:
        await close(client)
        if (refusal := _refusal(url, address, client, error)) is not None:
            raise BusError(f"the nats-server at {without_secrets(url)} cannot be used: {refusal}") from error
        if isinstance(error, NoServersError) and last_error is not None:
            raise last_error from None
        raise
    return client


def _refusal(url: str, address: BusAddress, client: BusClient, error: BaseException) -> str | None:
    """Return why a server that answers cannot be used, and what to do; None if it is not that."""
    text = str(error)
    if "authorization violation" in text.lower():
        if address.access.credentials is not None:
            return f"it refuses the credentials in {address.access.credentials}"
        if address.token is not None:
            return "it refuses the token"
        if urlsplit(url).username is not None:
            return "it refuses the user in its URL"
        return "it wants credentials: set bus_credentials (--bus-credentials FILE)"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message
        return f"its certificate is not trusted ({reason}): set bus_ca (--bus-ca FILE) to who vouches for it"
    if isinstance(error, NoTls):
        return str(error)
    if client.wants_certificate and address.access.certificate is None:
        return "it wants a certificate of this service: set bus_certificate and bus_key"
    return None


async def close(client: BusClient) -> None:
    """Close a connection; one that is broken already as well."""
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await client.close()
