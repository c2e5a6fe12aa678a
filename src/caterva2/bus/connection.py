"""Where the bus is, and a connection to it that comes back by itself."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import aiohttp
import structlog
from nats.errors import Error as NatsError

from caterva2.bus.address import BusAddress, without_secrets
from caterva2.bus.client import CONNECT_S, BusClient, close, open_client
from caterva2.bus.streams import ensure
from caterva2.config import Token
from caterva2.errors import BusError, Caterva2Error, ConfigError, Corrupt, Unauthorized, Unavailable

__all__ = [
    "Bus",
    "BusAddress",
    "ask_broker",
    "checkpoint",
    "close",
    "connect",
]

FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 2.0
"""Pauses between attempts grow from one to the other, in seconds."""

log = structlog.get_logger(__name__)


async def ask_broker(
    url: str, token: Token | None, session: aiohttp.ClientSession | None = None
) -> BusAddress:
    """Ask a broker where its bus is.

    Parameters
    ----------
    url : str
        Of the broker.
    token : Token or None
    session : aiohttp.ClientSession, optional
        By default one is made for this request.

    Raises
    ------
    Unavailable
        If it does not answer.
    Unauthorized
        If it refuses the token.
    BusError
        If what answers is not a broker.
    """
    if session is None:
        async with aiohttp.ClientSession() as own:
            return await ask_broker(url, token, own)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        timeout = aiohttp.ClientTimeout(total=CONNECT_S)
        async with session.get(f"{url}/api/bus", headers=headers, timeout=timeout) as answer:
            if answer.status == 401:
                raise Unauthorized(
                    f"the broker at {url} refuses the token: set the one of the group (CATERVA2_TOKEN)"
                )
            if answer.status >= 500:
                raise Unavailable(f"the broker at {url} answers {answer.status}")
            if answer.status != 200:
                raise BusError(f"what answers at {url} is not a broker: status {answer.status} for /api/bus")
            return BusAddress.from_json(json.loads(await answer.read()))
    except Caterva2Error as error:
        if isinstance(error, Corrupt):
            raise BusError(f"what answers at {url} is not a broker: {error}") from error
        raise
    except (ValueError, aiohttp.InvalidURL) as error:
        raise BusError(f"what answers at {url} is not a broker: {error}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(
            f"the broker at {url} cannot be reached: {error or type(error).__name__}; "
            "is it running? (cat2 broker)"
        ) from error


async def connect(address: BusAddress, on_closed: Callable[[], None] | None = None) -> BusClient:
    """Connect once, to any of the servers of a bus, and make the buckets that are missing.

    Parameters
    ----------
    address : BusAddress
    on_closed : callable, optional
        Called when the connection is lost, or closed.

    Raises
    ------
    Unavailable
        If none of the servers answers.
    BusError
        If one answers but cannot be used: too old, no JetStream, wrong token.
    ConfigError
        If the credentials cannot be read.
    """
    errors = []
    for url in random.sample(address.urls, len(address.urls)):
        try:
            return await _connect(url, address, on_closed)
        except (BusError, ConfigError):
            raise
        except (NatsError, OSError, TimeoutError, ValueError) as error:
            errors.append(f"{without_secrets(url)}: {without_secrets(str(error)) or type(error).__name__}")
    raise Unavailable(f"no nats-server answers: {'; '.join(errors)}")


async def _connect(url: str, address: BusAddress, on_closed: Callable[[], None] | None) -> BusClient:
    client = await open_client(url, address, on_closed)
    try:
        await ensure(client, address.replicas)
    except BaseException:
        await close(client)
        raise
    return client


def checkpoint() -> None:
    """Raise the cancellation that this task was asked for and that a library swallowed.

    The client of NATS waits with `asyncio.wait_for`, which loses a cancellation (in Python 3.11) that comes
    at the moment at which what it waits for is done. Loops around such calls would run for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Bus:
    """A connection to the bus, made again whenever it is lost; an async context manager.

    Entering it does not wait for the connection.

    Parameters
    ----------
    locate : callable
        Returns where the bus is; asked at the start and while no connection can be made, since the bus may
        have come back elsewhere. Its errors are retried.
    """

    def __init__(self, locate: Callable[[], Awaitable[BusAddress]]) -> None:
        self._locate = locate
        self._address: BusAddress | None = None
        self._client: BusClient | None = None
        self._changed = asyncio.Condition()
        self._lost = asyncio.Event()
        self._scopes: set[asyncio.Timeout] = set()
        self._task: asyncio.Task[None]
        self._problem: str | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="bus")
        return self

    async def __aexit__(self, *exc: object) -> None:
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.2)  # again: see `checkpoint`

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None

    @property
    def problem(self) -> str | None:
        """Why there is no connection, or what was denied on it; None before the first attempt."""
        if self._client is None or not self._client.denied:
            return self._problem
        return f"permission denied on the bus: {', '.join(sorted(self._client.denied))}"

    async def wait_connected(self) -> None:
        """Return once there is a connection."""
        await self._wait_client()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[BusClient]:
        """Wait for a connection and use it, as long as it lasts.

        Raises
        ------
        BusError
            In place of the body, which is cancelled: the connection was lost.
        """
        client = await self._wait_client()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                yield client
        except TimeoutError:
            if scope.expired():
                raise BusError("the connection to the bus was lost") from None
            raise
        finally:
            self._scopes.discard(scope)

    async def _wait_client(self) -> BusClient:
        async with self._changed:
            await self._changed.wait_for(lambda: self._client is not None)
            assert self._client is not None
            return self._client

    async def _run(self) -> None:
        while True:
            client = await self._connect()
            try:
                async with self._changed:
                    self._client = client
                    self._changed.notify_all()
                await self._lost.wait()
            finally:
                self._client = None
                self._end_sessions()
                await close(client)

    def _end_sessions(self) -> None:
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)
        self._scopes.clear()

    async def _connect(self) -> BusClient:
        pause_s, attempts, had_one = FIRST_PAUSE_S, 0, self._address is not None
        if had_one:
            self._problem = "the connection was lost"
            log.warning("bus lost, connecting again", bus=str(self._address))
        while True:
            try:
                if attempts or self._address is None:
                    await self._ask()
                assert self._address is not None
                self._lost.clear()
                client = await connect(self._address, self._lost.set)
            except Caterva2Error as error:
                if not had_one and str(error) != self._problem:
                    log.warning("bus unreachable, will keep trying", reason=str(error))
                self._problem = str(error)
            else:
                self._problem = None
                log.info("bus connected", bus=str(self._address))
                return client
            attempts += 1
            # not all at once: a server that comes back has all of us to serve
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    async def _ask(self) -> None:
        try:
            self._address = await self._locate()
        except Unavailable:
            if self._address is None:  # without the broker the bus may well be there, where it was
                raise
