"""One host's HTTP API: how it is asked, and what its failures mean.

Errors of the wire become the types of `caterva2.errors`, here and nowhere else on this side. They name the
URL of the host without what may be secret in it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote, urlsplit

import aiohttp
from yarl import URL

from caterva2.config import Token
from caterva2.errors import Caterva2Error, Changed, NotCached, NotFound, Unauthorized, Unavailable
from caterva2.model.path import DatasetPath
from caterva2.source.breaker import Breaker
from caterva2.source.byteranges import BadAnswer, Run, range_header
from caterva2.source.link import Link
from caterva2.source.stats import UpstreamStats

__all__ = [
    "Condition",
    "Declined",
    "Nonsense",
    "Upstream",
    "WrongVersion",
    "etag_of",
]

HEALTH_BYTES = 64 * 1024
"""Most that is read of what a probe is answered, in bytes."""

METADATA_BYTES = 64 * 1024 * 1024
"""Most that is read of a head or of a batch of pages, in bytes."""

T = TypeVar("T")

Condition = Literal["ok", "down", "hung"]
"""``down``: it cannot be reached; ``hung``: it can, and does not answer."""

log = logging.getLogger(__name__)


class Declined(Unavailable):
    """A host answered that it cannot give this now (503); it may give something else."""


class Nonsense(Unavailable):
    """A host sent answers, and they were not what was asked for."""


class WrongVersion(Changed):
    """A host answered with another version than the one that was named, in place of a refusal."""


class Upstream:
    """Asks one host. Parameters as of `caterva2.source.http.HttpSource`.

    Attributes
    ----------
    name : str
        URL of the host, without what may be secret in it.
    fetching_s : float or None
        For how long the host had heard nothing of those that it was fetching from when it was last probed, in
        seconds; None if it was fetching nothing, as a publisher.
    link : Link
        What is known of the way to it.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        *,
        token: Token | None,
        requests: int,
        timeout_s: float,
        stats: UpstreamStats,
        only_if_cached: bool = False,
    ) -> None:
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        self.name = f"{parts.scheme}://{host}{parts.path}".rstrip("/")
        self._session = session
        self._headers = {"Accept-Encoding": "identity"}
        if only_if_cached:
            self._headers["Cache-Control"] = "only-if-cached"
        if token is not None:
            self._headers["Authorization"] = f"Bearer {str.__str__(token)}"
        elif user:  # what a reverse proxy may ask for
            self._headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
        self._slots = asyncio.Semaphore(requests)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        self._down_at = float("-inf")  # loop time of the last failure to reach it, if none succeeded since
        self._refused = False  # the last probe: it hangs if that was neither refused nor answered
        self._round_trip_s = 0.0
        self.fetching_s: float | None = None
        self.link = Link()
        self._breaker = Breaker(self.name, self._probe, self._count_hang)
        self.stats = stats

    @property
    def condition(self) -> Condition:
        """What the last probe said, if nothing was heard since."""
        if not self._breaker.hangs:
            return "ok"
        return "down" if self._refused else "hung"

    @property
    def heard_at(self) -> float:
        """Loop time at which anything of it was last heard."""
        return self._breaker.heard_at

    async def probe(self) -> float | None:
        """Ask for something that is answered at once.

        Returns
        -------
        float or None
            How long that took, in seconds; None if there was no answer.
        """
        return self._round_trip_s if await self._breaker.answers() else None

    async def _probe(self) -> None:
        """Return once the host answers anything."""
        began, self._refused = time.perf_counter(), False  # the clock of a loop may count milliseconds
        try:
            async with self._session.get(
                URL(f"{self.name}/health", encoded=True), headers=self._headers, allow_redirects=False
            ) as response:
                self._round_trip_s = time.perf_counter() - began
                self.link.answered(self._round_trip_s)
                self.fetching_s = _fetching_s(await response.content.read(HEALTH_BYTES))
        except (aiohttp.ClientError, RuntimeError) as error:  # RuntimeError: the session was closed meanwhile
            self._refused = True
            raise ConnectionError(str(error)) from error

    def _count_hang(self) -> None:
        self.stats.count("hangs")

    def received(self, nbytes: int) -> None:
        """Count bytes of a body: the host is alive."""
        self.stats.count("bytes", nbytes)
        self.link.received(nbytes)
        self._breaker.heard()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for leave to ask; who waited while the other side was found dead does not try in turn."""
        now = asyncio.get_running_loop().time
        since = now()
        self.stats.count("waiting")
        try:
            await self._slots.acquire()
        finally:
            self.stats.count("waiting", -1)
        self.stats.count("in_flight")
        try:
            if self._down_at > since:
                raise Unavailable(f"{self.name} does not answer")
            yield
        finally:
            self.stats.count("in_flight", -1)
            self._slots.release()

    @asynccontextmanager
    async def answer(
        self,
        path: DatasetPath,
        route: str,
        etag: str | None,
        *,
        query: Sequence[str] = (),
        runs: Sequence[Run] = (),
        headers: Mapping[str, str] = MappingProxyType({}),
        anew: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, and yield an answer of status 200 or 206 that is of the version asked for.

        Parameters
        ----------
        path : DatasetPath
        route : str
        etag : str or None
        query : sequence of str
            Encoded parameters.
        runs : sequence of Run
            The ranges wanted; all by default.
        headers : mapping of str to str
            Further ones.
        anew : bool
            No cache in between is to answer.

        Raises
        ------
        BadAnswer
            If the answer, or what the caller reads of it, is broken; its connection is closed then.
        """
        headers = {**self._headers, **headers}
        if etag is not None:
            headers["If-Match"] = f'"{etag}"'
            # in the URL too: for a cache in between, that is what tells versions apart
            query = [*query, f"version={quote(etag, safe='')}"]
        if runs:
            headers["Range"] = range_header(runs)
        if anew:
            headers.setdefault("Cache-Control", "no-cache")  # only-if-cached stays: nobody waits in a circle
        target = f"{self.name}{route}{quote(str(path), safe='/')}" + ("?" + "&".join(query) if query else "")
        url = URL(target, encoded=True)
        await self._breaker.admit()
        try:
            async with AsyncExitStack() as stack:
                request = self._session.get(
                    url, headers=headers, timeout=self._timeout, allow_redirects=False
                )
                response = await self._begun(stack, request)
                self.stats.count("requests")
                self._down_at = float("-inf")
                try:
                    with self._breaker.watching(response.close), self.link.body():
                        if response.status not in (200, 206):
                            raise await self._problem(response, path, etag)
                        _check_etag(response, path, etag)
                        yield response
                except BaseException:
                    response.close()  # the connection may be at any byte of the answer
                    raise
        except (aiohttp.ClientConnectorError, TimeoutError, aiohttp.InvalidURL) as error:
            self._down_at = asyncio.get_running_loop().time()
            self.stats.count("errors")
            reason = "does not answer" if isinstance(error, TimeoutError) else "cannot be reached"
            raise Unavailable(f"{self.name} {reason} ({type(error).__name__}, asked for {path})") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            if isinstance(error, Caterva2Error):
                raise
            raise BadAnswer(f"{type(error).__name__}: the connection broke") from error

    async def _begun(
        self, stack: AsyncExitStack, request: AbstractAsyncContextManager[aiohttp.ClientResponse]
    ) -> aiohttp.ClientResponse:
        """Wait for the head of an answer, for no longer than the host shows that it is alive."""
        now = asyncio.get_running_loop().time
        began = time.perf_counter()
        async with asyncio.timeout(None) as patience:
            with self._breaker.watching(lambda: patience.reschedule(now())):
                response = await stack.enter_async_context(request)
        self.link.answered(time.perf_counter() - began)
        self._breaker.heard()
        return response

    async def body(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body of an answer of metadata.

        Raises
        ------
        BadAnswer
            If it is longer than any metadata should be.
        """
        body = bytearray()
        async for data in response.content.iter_any():
            self.received(len(data))
            body += data
            if len(body) > METADATA_BYTES:
                raise BadAnswer(f"metadata of more than {METADATA_BYTES} bytes")
        return bytes(body)

    async def _problem(
        self, response: aiohttp.ClientResponse, path: DatasetPath, etag: str | None
    ) -> Exception:
        problem = _json_object(await self.body(response))
        detail = str(problem.get("detail") or response.reason or "")[:500]
        match response.status:
            case 404 if etag is None:
                return NotFound(str(path), detail or None)
            case 404:  # it was there; whether it is deleted, or not found again yet, the catalogue will say
                return Changed(str(path), etag)
            case 412:
                current = problem.get("current_etag")
                return Changed(str(path), etag, current if isinstance(current, str) else None)
            case 401 | 403:
                return Unauthorized(f"{self.name} refuses the token ({response.status})")
            case 504 if str(problem.get("type")).endswith(f":{NotCached.slug}"):
                return NotCached(f"{self.name}: {detail}")
            case status:
                self.stats.count("errors")
                after = response.headers.get("Retry-After", "")
                retry_after_s = float(after) if after.isascii() and after.isdigit() else 2.0
                kind = Declined if status == 503 else Unavailable
                return kind(f"{self.name} answered {status} for {path}: {detail}", retry_after_s)

    async def twice(
        self, path: DatasetPath, attempt: Callable[[bool], Awaitable[T]], *, anew: bool = False
    ) -> T:
        """Run an attempt, and once more if the answer was bad; then no cache in between is to answer.

        Parameters
        ----------
        path : DatasetPath
        attempt : callable
            Is told whether to ask `anew`, as of `answer`.
        anew : bool
            What the first one is told.

        Raises
        ------
        Unavailable
            If it was bad twice.
        """
        try:
            return await attempt(anew)
        except BadAnswer as error:
            self.stats.count("retries")
            log.info("%s sent a bad answer for %s, asking again: %s", self.name, path, error)
        try:
            return await attempt(True)
        except BadAnswer as error:
            raise self.gave_up(path, error) from error

    def gave_up(self, path: DatasetPath, error: BadAnswer) -> Unavailable:
        """Return what to raise after the second bad answer."""
        self.stats.count("errors")
        return Nonsense(f"{self.name} sent a bad answer for {path}, twice: {error}")


def etag_of(response: aiohttp.ClientResponse) -> str:
    """Return the strong ETag of an answer, without its quotes.

    Raises
    ------
    BadAnswer
        If it has none.
    """
    value = response.headers.get("ETag", "")
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        raise BadAnswer(f"ETag {value!r}, which is not strong (does a proxy change the answers?)")
    return value[1:-1]


def _check_etag(response: aiohttp.ClientResponse, path: DatasetPath, etag: str | None) -> None:
    current = etag_of(response)
    if etag is not None and current != etag:
        raise WrongVersion(str(path), etag, current)


def _fetching_s(health: bytes) -> float | None:
    fetching_s = _json_object(health).get("fetching_s")
    return float(fetching_s) if isinstance(fetching_s, int | float) else None


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
