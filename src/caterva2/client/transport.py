"""Sending requests: urllib3, with our errors.

urllib3 was chosen by measurement (``docs/design/002-libraries.md``): an answer of 4 KB costs two thirds of
what it costs with httpx2. Connections are pooled and shared by threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError
from urllib3.exceptions import TimeoutError as TimedOut
from urllib3.response import BaseHTTPResponse

from caterva2.client.protocol import Reply, Request, error_of
from caterva2.config import Token
from caterva2.errors import Unavailable

__all__ = ["Body", "Transport"]

CONNECTIONS = 16
"""Idle connections that are kept."""

CONNECT_S = 5.0
"""How long a connection may take, in seconds, where the time-out is not shorter."""

PIECE_BYTES = 256 * 1024
"""How much is read at once: from here on larger pieces gain nothing."""


class Body:
    """The body of an answer, as it arrives.

    Attributes
    ----------
    url : str
        Of the service.
    status : int
    headers : mapping
        Case-insensitive.
    """

    def __init__(self, response: BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status
        self.headers = response.headers

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, fewer only at the end; all that is left by default.

        Raises
        ------
        Unavailable
            If the connection broke.
        """
        try:
            return self._response.read(None if size < 0 else size)
        except HTTPError as error:
            raise broken(self.url, error) from error

    def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes.

        Raises
        ------
        Unavailable
            If the body ends before.
        """
        data = self.read(size) if size else b""
        if len(data) != size:
            raise BrokenOff(f"{self.url} broke the answer off; try again")
        return data

    def read_into(self, target: memoryview) -> None:
        """Fill a buffer of bytes.

        Raises
        ------
        Unavailable
            If the body ends before the buffer is full.
        """
        position = 0
        while position < len(target):
            size = min(PIECE_BYTES, len(target) - position)
            target[position : position + size] = self.read_exactly(size)
            position += size

    def pieces(self) -> Iterator[bytes]:
        """Yield what comes, as soon as it comes.

        Raises
        ------
        Unavailable
            If the connection broke.
        """
        try:
            while data := self._response.read1(PIECE_BYTES):
                yield data
        except HTTPError as error:
            raise broken(self.url, error) from error

    def stop(self) -> None:
        """End the reading of another thread: it sees the end of the body, or a broken connection."""
        with suppress(ValueError, RuntimeError, OSError):  # raised where it has ended already
            self._response.shutdown()


class Transport:
    """Sends requests to one service. Can be used by several threads.

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
    heard : callable or None
        Is told the headers of each answer that is no error.
    """

    def __init__(self, url: str, token: Token | None, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.heard: Callable[[Mapping[str, str]], None] | None = None
        parsed = urllib3.util.parse_url(url)
        self._prefix = parsed.path or ""
        self._manager = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False)
        self._pool = self._manager.connection_from_url(url)
        self._headers = {"Accept": "application/json", "User-Agent": "caterva2"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {str.__str__(token)}"

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._manager.clear()

    def call(self, request: Request) -> Reply:
        """Send a request and return its answer, which is not an error.

        Raises
        ------
        Caterva2Error
            What the answer stands for, if it is one.
        Unavailable
            If nobody answers.
        """
        with self.open(request) as body:
            return Reply(body.status, body.headers, body.read())

    @contextmanager
    def open(self, request: Request, *, silence_s: float | None = None) -> Iterator[Body]:
        """Send a request and let its answer, which is not an error, be read.

        Parameters
        ----------
        request : Request
        silence_s : float, optional
            How long the other side may stay silent, where it is not the time-out of this transport.

        Raises
        ------
        Caterva2Error
            What the answer stands for, if it is one.
        Unavailable
            If nobody answers.
        """
        response = self._send(request, silence_s or self.timeout_s)
        try:
            body = Body(response, self.url)
            if response.status >= 300:
                raise error_of(Reply(response.status, response.headers, body.read()), self.url)
            if self.heard is not None:
                self.heard(body.headers)
            yield body
        finally:
            if not response.closed:
                response.close()  # what is left of the body would be taken for the next answer
            response.release_conn()

    def _send(self, request: Request, silence_s: float) -> BaseHTTPResponse:
        try:
            return self._send_once(request, silence_s)
        except ProtocolError as error:
            # The server may close a connection at the moment when it is used again
            if not request.idempotent:
                raise broken(self.url, error) from error
        except HTTPError as error:
            raise broken(self.url, error) from error
        try:
            return self._send_once(request, silence_s)
        except HTTPError as error:
            raise broken(self.url, error) from error

    def _send_once(self, request: Request, silence_s: float) -> BaseHTTPResponse:
        options: dict[str, Any] = {"preload_content": False, "decode_content": False, "redirect": False}
        return self._pool.urlopen(
            request.method,
            self._prefix + request.target,
            body=request.body,
            headers={**self._headers, **request.headers},
            retries=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_S, silence_s), read=silence_s),
            **options,
        )


class BrokenOff(Unavailable):
    """The connection broke while an answer was on its way; it could not say why."""


def broken(url: str, error: HTTPError) -> Unavailable:
    """Return a failure of the connection as an error that says what to do."""
    if isinstance(error, TimedOut) and not isinstance(error, NewConnectionError):
        return Unavailable(f"{url} does not answer in time; try again, or allow it more with timeout_s")
    if isinstance(error, NewConnectionError):
        reason = error.__cause__ or error
        text = getattr(reason, "strerror", None) or str(reason)
        return Unavailable(
            f"cannot reach the subscriber at {url}: {text.lower()}; is it running? (cat2 subscriber)"
        )
    if isinstance(error, ProtocolError):
        return BrokenOff(f"the connection to {url} broke; try again")
    return Unavailable(f"cannot reach the subscriber at {url}: {error}; is it running? (cat2 subscriber)")
