"""Sending requests and reading answers on an event loop, with our errors. Connections are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import aiohttp
from yarl import URL

from caterva2.client.decoding import Decoding
from caterva2.client.problems import error_of
from caterva2.client.protocol import Reply, Request
from caterva2.client.retries import Retries, busy_s
from caterva2.client.transport import CONNECT_S, RESTARTING, SLOW_BYTES_PER_S, BrokenOff, broken
from caterva2.client.wire import NotConnected
from caterva2.config import Token
from caterva2.errors import Caterva2Error, Unavailable

if TYPE_CHECKING:
    import ssl

__all__ = ["AsyncBody", "AsyncRetries", "AsyncTransport", "Closed"]

CONNECTIONS = 32
"""Most connections at once; requests beyond wait until one is free."""

CLOSE_S = 1.0
"""How long connections may take to close that nobody uses any more, in seconds."""

MAX_JSON_BYTES = 1 << 30
"""Longest answer that is read whole without knowing what it should have, in bytes."""


class AsyncBody:
    """The body of an answer, as it arrives.

    Attributes
    ----------
    url : str
        Of the service.
    status : int
    headers : mapping
        Case-insensitive.
    """

    def __init__(
        self, answer: aiohttp.ClientResponse, url: str, silence_s: float, closed: Callable[[], bool]
    ) -> None:
        self._answer = answer
        self._silence_s = silence_s
        self._closed = closed
        self.url = url
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what comes, as soon as it comes.

        Raises
        ------
        Unavailable
            If the connection broke.
        """
        try:
            while piece := await self._some():
                yield piece
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            if self._closed():
                raise Closed(self.url) from error
            if isinstance(error, RuntimeError):
                raise
            fail(self.url, error)

    async def _some(self) -> bytes:
        async with asyncio.timeout(self._silence_s):
            return await self._answer.content.readany()

    async def read(self, most: int) -> bytes:
        """Return all of it.

        Raises
        ------
        Caterva2Error
            If it is more than so many bytes.
        Unavailable
            If the connection broke.
        """
        parts, count = [], 0
        async for piece in self.pieces():
            count += len(piece)
            if count > most:
                raise Caterva2Error(f"{self.url} sent more than was asked for")
            parts.append(piece)
        return b"".join(parts)

    async def read_into(self, target: memoryview) -> None:
        """Fill a buffer of bytes with it.

        Raises
        ------
        Unavailable
            If it ends before the buffer is full.
        Caterva2Error
            If it does not end then.
        """
        position = 0
        async for piece in self.pieces():
            if position + len(piece) > len(target):
                raise Caterva2Error(f"{self.url} sent more than was asked for")
            target[position : position + len(piece)] = piece
            position += len(piece)
        if position < len(target):
            raise BrokenOff(f"{self.url} broke the answer off; try again")


class AsyncTransport:
    """Sends requests to one service, on one event loop at a time.

    Parameters
    ----------
    url : str
        Of the service, without a slash at the end.
    token : Token or None
        Sent with each request.
    timeout_s : float
        How long the other side may stay silent, in seconds.

    Attributes
    ----------
    decoding : Decoding
        The threads that decode what comes.
    closings : int
        How often it was closed.
    """

    def __init__(self, url: str, token: Token | None, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.decoding = Decoding(CONNECTIONS)
        self._base = str(URL(url)).rstrip("/")
        self.closings = 0
        self._answers: set[aiohttp.ClientResponse] = set()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None  # kept, or it might be collected
        self._headers = {"Accept": "application/json", "User-Agent": "caterva2"}
        self._has_met = False  # the service: one that was never there is not being restarted
        if token is not None:
            self._headers["Authorization"] = f"Bearer {str.__str__(token)}"

    async def close(self) -> None:
        """Close the connections at once, those in use as well, and end the threads."""
        loop = self._loop
        if loop is not None and loop is not asyncio.get_running_loop():
            if loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.close(), loop))
            else:
                self._forget()
            return
        session, self._session = self._session, None
        self.closings += 1
        self.decoding.close()
        for answer in self._answers:
            answer.close()  # wakes who reads it, as closing its connection alone does not
        if session is not None:
            await session.close()

    def close_soon(self) -> None:
        """Close the connections from any thread, also when their event loop has ended."""
        session, loop = self._session, self._loop
        if session is None or loop is None:
            return
        if not loop.is_running():
            self._forget()
        elif loop is _running_loop():
            self._closing = loop.create_task(self.close())
        else:
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self.close(), loop).result(CLOSE_S)

    def _forget(self) -> None:
        """Give up the connections of an event loop that does not run."""
        session, self._session = self._session, None
        if session is not None and session.connector is not None:
            session.connector._close()  # its `close` wants to be awaited
            session.detach()

    async def call(self, request: Request) -> Reply:
        """Send a request and return its answer, which is not an error.

        Raises
        ------
        Caterva2Error
            What the answer stands for, if it is one.
        Unavailable
            If nobody answers.
        """
        async with self.open(request) as body:
            return Reply(body.status, body.headers, await body.read(MAX_JSON_BYTES))

    def retries(self) -> AsyncRetries:
        """Return how often a request that is sent now is to be tried."""
        return AsyncRetries(self)

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        silence_s: float | None = None,
        nbytes: int = 0,
        retries: AsyncRetries | None = None,
    ) -> AsyncIterator[AsyncBody]:
        """Send a request and let its answer, which is not an error, be read.

        When the context is left before the end of the answer, or by a cancellation, its connection is closed.

        Parameters
        ----------
        request, silence_s, nbytes, retries
            As for `caterva2.client.transport.Transport.open`.

        Raises
        ------
        Caterva2Error
            What the answer stands for, if it is one.
        Unavailable
            If nobody answers.
        RuntimeError
            If this is another event loop than before.
        """
        silence_s = silence_s or self.timeout_s
        first_s = silence_s + nbytes / SLOW_BYTES_PER_S
        closings = self.closings
        answer = await self._accepted(request, first_s, retries or self.retries())
        self._answers.add(answer)
        try:
            if self.closings != closings:
                raise Closed(self.url)
            body = AsyncBody(answer, self.url, silence_s, lambda: self.closings != closings)
            if answer.status >= 300:
                text = await body.read(MAX_JSON_BYTES)
                raise error_of(Reply(answer.status, answer.headers, text), self.url)
            yield body
        finally:
            self._answers.discard(answer)
            answer.release()  # which closes the connection unless all has come

    async def _accepted(
        self, request: Request, first_s: float, retries: AsyncRetries
    ) -> aiohttp.ClientResponse:
        """Send a request, again where the service has too much to do; return its answer."""
        while True:
            answer = await self._send(request, first_s, retries)
            if answer.status not in (429, 503) or not request.idempotent:
                return answer
            wait_s = busy_s(Reply(answer.status, answer.headers, b""))
            if wait_s is None or not await retries.again(wait_s):
                return answer
            answer.release()

    async def _send(self, request: Request, first_s: float, retries: AsyncRetries) -> aiohttp.ClientResponse:
        """Send a request, again where the connection fails; return its answer, whatever that says."""
        again = False
        while True:
            try:
                answer = await self._send_once(request, first_s)
            except Closed:
                raise
            except TimeoutError as error:
                fail(self.url, error)
            except aiohttp.ClientConnectorError as error:  # nothing was sent
                if not self._has_met or error.errno not in RESTARTING or not await retries.again():
                    fail(self.url, error)
            except (aiohttp.ClientError, OSError) as error:
                # The server may close a connection at the moment when it is used again
                if not request.idempotent or (again and not await retries.again()):
                    fail(self.url, error)
                again = True
            else:
                self._has_met = True
                return answer

    async def _send_once(self, request: Request, first_s: float) -> aiohttp.ClientResponse:
        connect_s = min(CONNECT_S, first_s)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=first_s)
        closings = self.closings
        try:
            return await self._here().request(
                request.method,
                URL(self._base + request.target, encoded=True),
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
                timeout=timeout,
            )
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # as aiohttp says that it was closed
            if self.closings != closings:
                raise Closed(self.url) from error
            raise
        except ValueError as error:  # of a header that would take several lines
            raise Caterva2Error(f"{request.target!r} cannot be asked for: {error}") from error

    def _tls(self) -> ssl.SSLContext | bool:
        """Return what checks who answers: with the authorities that are trusted now, not at the import."""
        if not self._base.startswith("https:"):
            return True
        import ssl

        return ssl.create_default_context()

    def _here(self) -> aiohttp.ClientSession:
        """Return the session of this event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop.is_closed():
            self._forget()
        if self._session is None:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._tls()),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                skip_auto_headers=("Accept-Encoding",),
                auto_decompress=False,
            )
        elif self._loop is not loop:
            raise RuntimeError("an AsyncClient belongs to one event loop: make one for each")
        return self._session


class AsyncRetries:
    """The pauses of one request, on an event loop; they end when its transport is closed."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._retries = Retries(transport.timeout_s)
        self._transport = transport
        self._closings = transport.closings

    async def again(self, least_s: float = 0.0) -> bool:
        """Make the next pause, at least so long, and return whether to send the request again.

        Raises
        ------
        Closed
            If the transport was closed meanwhile.
        """
        pause_s = self._retries.next_s(least_s)
        if pause_s is not None:
            await asyncio.sleep(pause_s)
        if self._transport.closings != self._closings:
            raise Closed(self._transport.url)
        return pause_s is not None


class Closed(Unavailable):
    """The client was closed while an answer was on its way."""

    def __init__(self, url: str) -> None:
        super().__init__(f"the client of {url} was closed meanwhile")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Return why there is no connection."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    return error.os_error.strerror or str(error.os_error)


def fail(url: str, error: aiohttp.ClientError | OSError) -> NoReturn:
    """Raise a failure of the connection as an error that says what to do."""
    if isinstance(error, aiohttp.ClientConnectorError):
        raise broken(url, NotConnected(error.errno, _reason(error))) from error
    if isinstance(error, TimeoutError):
        raise broken(url, error) from error
    raise broken(url, ConnectionError(str(error))) from error
