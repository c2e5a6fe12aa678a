"""HTTP/1.1 over sockets that are kept: requests are sent, and answers parsed by httptools (llhttp, in C).

A request costs a sixth of what it costs with urllib3, which parses headers as e-mail: see
``docs/design/002-libraries.md``. Bodies of known length are received right into the memory of who reads them.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from caterva2.client.underway import UnderWay

if TYPE_CHECKING:
    import ssl

__all__ = ["Answer", "Broken", "Headers", "NotConnected", "Wire"]

IDLE_CONNECTIONS = 16
"""Idle connections that are kept."""

RECEIVE_BYTES = 64 * 1024
"""So much is received at once where it is not known how much comes, in bytes."""

MAX_HEAD_BYTES = 256 * 1024
"""Longest head of an answer, in bytes."""


class Broken(ConnectionError):
    """The connection ended within an answer, or the answer is not HTTP."""


class NotConnected(OSError):
    """There is no connection: nobody listens, no such host, a certificate that is not trusted."""


class Headers(Mapping[str, str]):
    """The headers of an answer, by name in any case; those of the same name are joined by commas."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, name: bytes, value: bytes) -> None:
        """Add a line."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._values[key] = f"{self._values[key]}, {text}" if key in self._values else text

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _Parsed:
    """What the parser found of an answer so far: it calls the methods ``on_…``."""

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.headers = Headers()
        self.parts: deque[memoryview] = deque()
        self.received = 0  # of the body, in bytes
        self.status = 0
        self.keep = False
        self.begun = self.done = False

    def on_message_begin(self) -> None:
        if self.done:  # more than was asked for
            self.keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.add(name, value)

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.status >= 200:
            self.begun = True
            self.keep = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self.parts.append(memoryview(data))
        self.received += len(data)

    def on_message_complete(self) -> None:
        if self.begun:
            self.done = True
        else:  # an interim answer, such as 100 Continue
            self.headers = Headers()

    def feed(self, data: bytes) -> None:
        """Parse what has come.

        Raises
        ------
        Broken
        """
        try:
            self.parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self.done:
                raise Broken(f"not an answer: {error}") from error
            self.keep = False  # what comes behind the answer is of no interest


class Answer:
    """An answer whose head has come. Belongs to one thread at a time.

    Attributes
    ----------
    status : int
    headers : Headers
    """

    def __init__(self, sock: socket.socket, parsed: _Parsed, under_way: UnderWay | None = None) -> None:
        self._sock = sock
        self._under_way = under_way
        self._parsed = parsed
        self.status, self.headers = parsed.status, parsed.headers
        # With a length, and without anything else that frames it, the parser is not needed for the rest
        coded, length = "transfer-encoding" in self.headers, self.headers.get("content-length")
        self._until_closed = not coded and length is None
        self._left = None if length is None or coded or parsed.done else int(length) - parsed.received
        self._failed: OSError | None = None

    @property
    def done(self) -> bool:
        """Whether all of it has come."""
        return self._parsed.done if self._left is None else not self._left

    def read(self, size: int | None = None) -> bytes:
        """Return up to `size` bytes, by default all that is left.

        There are fewer at the end only, and where the connection breaks, which the next call says.

        Raises
        ------
        OSError
            If the connection breaks, or is silent for too long.
        """
        parts: list[bytes] = []
        left = sys.maxsize if size is None else size
        try:
            while left and (data := self.some(left)):
                parts.append(data)
                left -= len(data)
        except OSError as error:
            if size is None or not parts:
                raise
            self._failed = error
        return b"".join(parts)

    def read_into(self, target: memoryview) -> int:
        """Fill a buffer of bytes, and return how many came before the answer ended.

        Raises
        ------
        OSError
            As for `read`.
        """
        position = 0
        while position < len(target):
            if self._parsed.parts or self._left is None:
                data = self.some(len(target) - position)
                count = len(data)
                target[position : position + count] = data
            elif count := min(self._left, len(target) - position):
                count = self._sock.recv_into(target[position : position + count])
                self._count(count)
            if not count:
                break
            position += count
        return position

    def some(self, most: int) -> bytes:
        """Return what comes next, at most so many bytes; nothing at the end.

        Raises
        ------
        OSError
            As for `read`.
        """
        while not self._parsed.parts:
            if self._failed is not None:
                raise self._failed
            if self.done:
                return b""
            if self._left is not None:
                data = self._sock.recv(min(self._left, most))
                self._count(len(data))
                return data
            self._receive()
        part = self._parsed.parts.popleft()
        if len(part) > most:
            self._parsed.parts.appendleft(part[most:])
        return bytes(part[:most])

    def _count(self, received: int) -> None:
        if not received:
            raise Broken("the connection was closed within an answer")
        assert self._left is not None
        self._left -= received

    def _receive(self) -> None:
        data = self._sock.recv(RECEIVE_BYTES)
        if data:
            self._parsed.feed(data)
        elif self._until_closed:
            self._parsed.done = True
        else:
            raise Broken("the connection was closed within an answer")


class Wire:
    """Connections to one service. Can be used by several threads; nothing is locked.

    Parameters
    ----------
    url : str
        Of the service; ``https`` checks its certificate as OpenSSL does by default.

    Attributes
    ----------
    host : str
        What the service is called, for the header ``Host``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self.host = parts.netloc.rpartition("@")[2].encode("idna").decode()
        self._idle: deque[socket.socket] = deque()
        self._tls: ssl.SSLContext | None = None
        self._process = os.getpid()
        weakref.finalize(self, _close_all, self._idle)

    def close(self) -> None:
        """Close the connections that are idle."""
        _close_all(self._idle)

    def send(
        self,
        message: bytes,
        connect_s: float,
        silence_s: float,
        *,
        first_s: float | None = None,
        anew: bool = False,
        under_way: UnderWay | None = None,
    ) -> Answer:
        """Send a request, and return its answer once the head of that has come.

        Parameters
        ----------
        message : bytes
            Head and body of the request.
        connect_s, silence_s : float
            How long a connection may take, and how long the other side may stay silent, in seconds.
        first_s : float, optional
            How long it may be silent before the answer begins, where that is longer.
        anew : bool
            On a new connection: of those that are idle, more than one may have ended.
        under_way : UnderWay, optional
            Is told of the connection, until that is released.

        Raises
        ------
        NotConnected
            If there is no connection.
        OSError
            If it breaks, or is silent for too long.
        """
        sock = (None if anew else self._take()) or self._connect(connect_s)
        try:
            if under_way is not None:
                under_way.add(sock)
            _set_timeout(sock, first_s or silence_s)
            with suppress(BrokenPipeError, ConnectionResetError):  # an answer may have come before
                sock.sendall(message)
            parsed, size = _Parsed(), 0
            while not parsed.begun:
                data = sock.recv(RECEIVE_BYTES)
                size += len(data)
                if not data or size > MAX_HEAD_BYTES:
                    raise Broken("the connection was closed before an answer")
                parsed.feed(data)
            _set_timeout(sock, silence_s)
            return Answer(sock, parsed, under_way)
        except BaseException:
            if under_way is not None:
                under_way.remove(sock)
            sock.close()
            raise

    def release(self, answer: Answer) -> None:
        """Keep the connection of an answer, if it can be used again; close it otherwise."""
        sock = answer._sock
        if answer._under_way is not None:
            answer._under_way.remove(sock)
        if not (answer.done and answer._parsed.keep) or len(self._idle) >= IDLE_CONNECTIONS:
            sock.close()
        else:
            self._idle.append(sock)

    def _take(self) -> socket.socket | None:
        """Return an idle connection, which the other side has not closed."""
        if self._process != os.getpid():  # after a fork: those that are here belong to the parent
            self._process = os.getpid()
            self.close()
        while self._idle:
            try:
                sock = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if not _is_readable(sock):
                return sock
            sock.close()
        return None

    def _connect(self, connect_s: float) -> socket.socket:
        try:
            sock = socket.create_connection((self._host, self._port), connect_s)
        except TimeoutError:
            raise
        except OSError as error:
            raise NotConnected(error.errno, error.strerror or str(error)) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._context().wrap_socket(sock, server_hostname=self._host) if self._secure else sock
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise NotConnected(error.errno, str(error)) from error
            raise

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        return self._tls


def _set_timeout(sock: socket.socket, seconds: float) -> None:
    if sock.gettimeout() != seconds:  # setting it is a system call
        sock.settimeout(seconds)


def _close_all(idle: deque[socket.socket]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop().close()


if hasattr(select, "poll"):

    def _is_readable(sock: socket.socket) -> bool:
        """Return whether an idle connection has something to say: that it ends."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

else:  # Windows

    def _is_readable(sock: socket.socket) -> bool:
        """Return whether an idle connection has something to say: that it ends."""
        return bool(select.select([sock], [], [], 0)[0])
