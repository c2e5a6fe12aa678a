"""Sending requests and reading answers, with our errors. Connections are kept, and shared by threads."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from caterva2.client.blocks import Decoders
from caterva2.client.problems import error_of
from caterva2.client.progress import Meter
from caterva2.client.protocol import Reply, Request
from caterva2.client.retries import Retries, busy_s
from caterva2.client.underway import UnderWay
from caterva2.client.wire import Answer, NotConnected, Wire
from caterva2.config import Token
from caterva2.errors import Caterva2Error, Unavailable

__all__ = ["Body", "Transport"]

CONNECT_S = 5.0
"""How long a connection may take, in seconds, where the time-out is not shorter."""

PIECE_BYTES = 256 * 1024
"""How much is read at once: from here on larger pieces gain nothing."""

COUNTED_BYTES = 1024 * 1024
"""How often who watches is told of what has come, in bytes."""

SLOW_BYTES_PER_S = 256 * 1024
"""What is asked for may be fetched from far away first, this slowly, in decoded bytes per second."""

RESTARTING = (errno.ECONNREFUSED, errno.ECONNRESET)
"""Failures to connect that pass when a service has been restarted."""

_NOT_IN_A_LINE = re.compile(r"[\r\n\0]")


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

    def __init__(self, answer: Answer, url: str) -> None:
        self._answer = answer
        self._count: _Count | None = None
        self.url = url
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, fewer only at the end; all that is left by default.

        What came before the connection broke is returned first.

        Raises
        ------
        Unavailable
            If the connection broke.
        """
        try:
            data = self._answer.read(None if size < 0 else size)
        except OSError as error:
            raise broken(self.url, error) from error
        if self._count is not None:
            self._count.add(len(data))
        return data

    def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes.

        Raises
        ------
        Unavailable
            If the body ends before.
        """
        data = self.read(size)
        if len(data) != size:
            self.read(1)  # says why, where that is known
            raise BrokenOff(f"{self.url} broke the answer off; try again")
        return data

    def read_into(self, target: memoryview) -> None:
        """Fill a buffer of bytes.

        Raises
        ------
        Unavailable
            If the body ends before the buffer is full.
        """
        if self._count is None:
            self._fill(target)
            return
        for first in range(0, len(target), COUNTED_BYTES):
            piece = target[first : first + COUNTED_BYTES]
            self._fill(piece)
            self._count.add(len(piece))

    def _fill(self, target: memoryview) -> None:
        try:
            count = self._answer.read_into(target)
        except OSError as error:
            raise broken(self.url, error) from error
        if count != len(target):
            raise BrokenOff(f"{self.url} broke the answer off; try again")

    def pieces(self) -> Iterator[bytes]:
        """Yield what comes, as soon as it comes.

        Raises
        ------
        Unavailable
            If the connection broke.
        """
        try:
            while data := self._answer.some(PIECE_BYTES):
                yield data
        except OSError as error:
            raise broken(self.url, error) from error

    @contextmanager
    def counted(self, meter: Meter, nbytes: int) -> Iterator[None]:
        """Count what is read while inside, in the measure of its `nbytes` decoded bytes.

        If reading fails, nothing of it counts.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or not int(length):
            yield
            return
        self._count = _Count(meter, nbytes / int(length))
        try:
            yield
        except BaseException:
            meter.add(-self._count.said)
            raise
        finally:
            self._count = None


class _Count:
    """Tells a meter how much has come, as decoded bytes."""

    def __init__(self, meter: Meter, scale: float) -> None:
        self._meter = meter
        self._scale = scale
        self._come = 0
        self.said = 0

    def add(self, nbytes: int) -> None:
        self._come += nbytes
        done = int(self._come * self._scale)
        self._meter.add(done - self.said)
        self.said = done


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
    progress : bool
        Whether what takes long shows a bar.

    Attributes
    ----------
    decoders : Decoders
        The threads that decode what comes.
    heard : callable or None
        Is told the headers of each answer that is no error.
    """

    def __init__(self, url: str, token: Token | None, timeout_s: float, *, progress: bool = False) -> None:
        self.url = url
        self._bar = threading.Lock() if progress else None
        self.timeout_s = timeout_s
        self.heard: Callable[[Mapping[str, str]], None] | None = None
        self.decoders = Decoders()
        self._has_met = False  # the service: one that was never there is not being restarted
        self._wire = Wire(url)
        self._prefix = quote(urlsplit(url).path, safe="/%:@!$&'()*+,;=~")
        self._headers = {"Host": self._wire.host, "Accept": "application/json", "User-Agent": "caterva2"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {str.__str__(token)}"

    def close(self) -> None:
        """Close the connections, and end the threads, that are not in use."""
        self._wire.close()
        self.decoders.close()

    def call(self, request: Request, *, silence_s: float | None = None) -> Reply:
        """Send a request and return its answer, which is not an error.

        Raises
        ------
        Caterva2Error
            What the answer stands for, if it is one.
        Unavailable
            If nobody answers.
        """
        with self.open(request, silence_s=silence_s) as body:
            return Reply(body.status, body.headers, body.read())

    @contextmanager
    def open(
        self,
        request: Request,
        *,
        silence_s: float | None = None,
        nbytes: int = 0,
        retries: Retries | None = None,
        under_way: UnderWay | None = None,
    ) -> Iterator[Body]:
        """Send a request and let its answer, which is not an error, be read.

        Parameters
        ----------
        request : Request
        silence_s : float, optional
            How long the other side may stay silent, where it is not the time-out of this transport.
        nbytes : int
            Size of what is asked for, decoded, in bytes: the answer may take longer to begin if that is much.
        retries : Retries, optional
            How often to try again where that may help; by default for as long as the time-out of this
            transport.
        under_way : UnderWay, optional
            Lets another thread stop it.

        Raises
        ------
        Caterva2Error
            What the answer stands for, if it is one.
        Unavailable
            If nobody answers.
        """
        silence_s = silence_s or self.timeout_s
        patience = _Patience(
            silence_s,
            silence_s + nbytes / SLOW_BYTES_PER_S,
            retries or self.retries(),
            under_way,
        )
        answer = self._accepted(request, patience)
        try:
            body = Body(answer, self.url)
            if answer.status >= 300:
                raise error_of(Reply(answer.status, answer.headers, body.read()), self.url)
            if self.heard is not None:
                self.heard(answer.headers)
            yield body
        finally:
            self._wire.release(answer)

    def meter(self, what: str, nbytes: int | None = None) -> AbstractContextManager[Meter | None]:
        """Return what shows how far something is that may take long: a context of a `Meter`.

        There is none where bars are not wanted, or something else has one already.
        """
        return _NO_METER if self._bar is None else _one_meter(self._bar, what, nbytes)

    def retries(self) -> Retries:
        """Return how often a request that is sent now is to be tried."""
        return Retries(self.timeout_s)

    def _accepted(self, request: Request, patience: _Patience) -> Answer:
        """Send a request, again where the service has too much to do; return its answer."""
        while True:
            answer = self._send(request, patience)
            if answer.status not in (429, 503) or not request.idempotent:
                return answer
            wait_s = busy_s(Reply(answer.status, answer.headers, b""))
            if wait_s is None or not patience.again(wait_s):
                return answer
            self._wire.release(answer)

    def _send(self, request: Request, patience: _Patience) -> Answer:
        """Send a request, again where the connection fails; return its answer, whatever that says."""
        message, anew = self._message(request), False
        while True:
            try:
                answer = self._wire.send(
                    message,
                    min(CONNECT_S, patience.silence_s),
                    patience.silence_s,
                    first_s=patience.first_s,
                    anew=anew,
                    under_way=patience.under_way,
                )
            except TimeoutError as error:
                raise broken(self.url, error) from error
            except NotConnected as error:  # nothing was sent
                if not self._has_met or error.errno not in RESTARTING or not patience.again():
                    raise broken(self.url, error) from error
            except OSError as error:
                # The server may close a connection at the moment when it is used again
                if not request.idempotent or not (patience.again() if anew else patience.going_on):
                    raise broken(self.url, error) from error
                anew = True
            else:
                self._has_met = True
                return answer

    def _message(self, request: Request) -> bytes:
        headers = {**self._headers, **request.headers}
        if request.body is not None or request.method != "GET":
            headers["Content-Length"] = str(len(request.body or b""))
        lines = [
            f"{request.method} {self._prefix}{request.target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if any(map(_NOT_IN_A_LINE.search, lines)):
            raise Caterva2Error(f"{request.target!r} cannot be asked for: a header would take several lines")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + (request.body or b"")


_NO_METER: AbstractContextManager[None] = nullcontext()


@contextmanager
def _one_meter(bar: threading.Lock, what: str, nbytes: int | None) -> Iterator[Meter | None]:
    if not bar.acquire(blocking=False):
        yield None
        return
    try:
        with Meter(what, nbytes) as meter:
            yield meter
    finally:
        bar.release()


class _Patience(NamedTuple):  # which is made faster than a frozen dataclass
    """How long one request is waited for, for its first byte and between others, and how often it is sent."""

    silence_s: float
    first_s: float
    retries: Retries
    under_way: UnderWay | None

    @property
    def going_on(self) -> bool:
        """Whether it was not stopped."""
        return self.under_way is None or not self.under_way.stopped.is_set()

    def again(self, least_s: float = 0.0) -> bool:
        """Pause, and return whether to send it again."""
        return self.retries.wait(self.under_way, least_s)


class BrokenOff(Unavailable):
    """The connection broke while an answer was on its way; it could not say why."""


def broken(url: str, error: OSError) -> Unavailable:
    """Return a failure of the connection as an error that says what to do."""
    if isinstance(error, NotConnected):
        why = str(error.strerror).lower()
        return Unavailable(f"cannot reach the subscriber at {url}: {why}; is it running? (cat2 subscriber)")
    if isinstance(error, TimeoutError):
        return Unavailable(f"{url} does not answer in time; try again, or allow it more with timeout_s")
    return BrokenOff(f"the connection to {url} broke; try again")
