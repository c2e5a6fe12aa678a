"""Versions at another host, over its HTTP API.

Every extent that `HttpSource.read` returns was checked against its digest. Errors of the wire become the
types of `caterva2.errors`; they name the URL of the source without what may be secret in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import aiohttp
import msgpack

from caterva2.config import Token
from caterva2.errors import (
    Corrupt,
    IntegrityError,
    Unsupported,
)
from caterva2.frame.geometry import geometry_of
from caterva2.model.extents import Extent, digest
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.model.selection import Selection
from caterva2.source.byteranges import (
    BadAnswer,
    MultipartReader,
    Run,
    SingleReader,
    boundary_of,
    check_range,
    plan,
)
from caterva2.source.link import Link
from caterva2.source.maker import (
    CHUNK_TYPE,
    MadeSlice,
    check_digest,
    headers_for,
    parts_of,
    query_of,
)
from caterva2.source.stats import UpstreamStats
from caterva2.source.upstream import Condition, Upstream, etag_of

__all__ = ["HttpSource", "UpstreamStats", "together"]

PAGES_PER_REQUEST = 64

INLINE_HASH_BYTES = 256 * 1024
"""So much is hashed at once on the loop: handing it to a thread would take longer."""

T = TypeVar("T")

log = logging.getLogger(__name__)


def _nobody() -> None:
    """Nobody wants to hear it."""


class HttpSource:
    """A `caterva2.source.protocol.Source` over another host's HTTP API.

    Parameters
    ----------
    url : str
        Of the service, without ``/api``.
    session : aiohttp.ClientSession
        The caller closes it.
    token : Token or None
        Sent as a bearer token; redirects are not followed, so that it goes nowhere else.
    gap_bytes : int
        Extents that are this near in the file are fetched as one range.
    requests : int
        Most requests under way, streams excepted (a slow reader of a stream would keep others waiting).
    timeout_s : float
        How long the other side may stay silent. There is no limit on the time of a whole answer.
    stats : UpstreamStats
        Is added to.
    only_if_cached : bool
        The host is to answer with what it has, and to ask nobody itself (RFC 9111, section 5.2.1.7).

    Attributes
    ----------
    name : str
        Its URL, without what may be secret in it.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        *,
        token: Token | None,
        gap_bytes: int,
        requests: int,
        timeout_s: float,
        stats: UpstreamStats,
        only_if_cached: bool = False,
    ) -> None:
        self._upstream = Upstream(
            url,
            session,
            token=token,
            requests=requests,
            timeout_s=timeout_s,
            stats=stats,
            only_if_cached=only_if_cached,
        )
        self._gap_bytes = gap_bytes
        self.stats = stats
        self.only_if_cached = only_if_cached
        self.name = self._upstream.name

    # -- the contract ----------------------------------------------------------------------------

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version; see `Source.head`.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized
        """

        async def attempt(anew: bool) -> Head:
            async with (
                self._upstream.slot(),
                self._upstream.answer(path, "/api/manifest/", etag, anew=anew) as response,
            ):
                try:
                    head = Head.decode(await self._upstream.body(response))
                except Corrupt as error:
                    raise BadAnswer(str(error)) from error
                if head.path != path or etag_of(response) != head.etag:
                    raise BadAnswer(f"the head of {head.path} at {head.etag} under another name")
                return head

        return await self._upstream.twice(path, attempt)

    async def pages(
        self, head: Head, numbers: Sequence[int], known: Mapping[int, Page] | None = None
    ) -> list[Page]:
        """Return pages of a version's manifest, fetched in few requests; see `Source.pages`.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized, IndexError
        """
        head.check_pages(numbers)
        wanted = sorted(set(numbers))
        batches = [wanted[n : n + PAGES_PER_REQUEST] for n in range(0, len(wanted), PAGES_PER_REQUEST)]
        got = await together(
            self._upstream.twice(head.path, partial(self._page_batch, head, batch, known or {}))
            for batch in batches
        )
        pages = {page.number: page for batch in got for page in batch}
        return [pages[number] for number in numbers]

    async def _page_batch(
        self, head: Head, numbers: Sequence[int], known: Mapping[int, Page], anew: bool
    ) -> list[Page]:
        query = [f"pages={_number_ranges(numbers)}"]
        contents = [known[number].content.hex() if number in known else "" for number in numbers]
        if any(contents):
            query.append(f"known={','.join(contents)}")
        async with (
            self._upstream.slot(),
            self._upstream.answer(head.path, "/api/manifest/", head.etag, query=query, anew=anew) as response,
        ):
            body = await self._upstream.body(response)
        try:
            return [
                Page.decode(item, head, number, known.get(number))
                for number, item in zip(numbers, msgpack.unpackb(body), strict=True)
            ]
        except Exception as error:  # msgpack raises a dozen types, not all of one base
            raise BadAnswer(f"pages that cannot be read: {error!r}") from error

    async def read(
        self, head: Head, extents: Sequence[Extent], heard: Callable[[], None] = _nobody
    ) -> list[bytes]:
        """Return the bytes of extents, each checked against its digest; see `Source.read`.

        Parameters
        ----------
        head : Head
        extents : sequence of Extent
        heard : callable, optional
            Is called when each request is sent, and whenever something of its answer arrives.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized, NotCached
        IntegrityError
            If the bytes of an extent did not match twice.
        """
        wanted = {extent.number: extent for extent in extents}
        requests = plan(wanted.values(), self._gap_bytes)
        got = await together(self._verified(head, runs, heard) for runs in requests)
        pieces = {number: data for part in got for number, data in part.items()}
        return [pieces[extent.number] for extent in extents]

    def portions(self, extents: Sequence[Extent]) -> list[list[Extent]]:
        """Return which of some extents would be asked for in one request."""
        return [[extent for run in runs for extent in run.extents] for runs in plan(extents, self._gap_bytes)]

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Do nothing: nothing is kept here."""

    async def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield bytes of a version as they arrive, **unverified**: pieces are no extents.

        A transfer that breaks off is resumed once.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized
        """
        resumed = False
        while start < stop:
            run = Run(start, stop, ())
            try:
                async with self._upstream.answer(head.path, "/data/", head.etag, runs=[run]) as response:
                    _check_single(response, run, head.size)
                    async for data in response.content.iter_any():
                        self._upstream.received(len(data))
                        if len(data) > stop - start:
                            raise BadAnswer("more bytes than asked for")
                        start += len(data)
                        yield data
                if start < stop:
                    raise BadAnswer(f"{stop - start} bytes less than asked for")
            except BadAnswer as error:
                if resumed:
                    raise self._upstream.gave_up(head.path, error) from error
                resumed = True
                self.stats.count("retries")

    # -- slices ----------------------------------------------------------------------------------

    @property
    def link(self) -> Link:
        """What is known of the way to it."""
        return self._upstream.link

    async def make(self, head: Head, selection: Selection) -> MadeSlice:
        """Return a part of an array, made there; see `SliceMaker.make`.

        Raises
        ------
        Unsupported, IntegrityError, NotFound, Changed, Unavailable, Unauthorized
        """
        parts = parts_of(head, selection)
        headers = headers_for(self.link, selection.size * geometry_of(head).dtype.itemsize)
        bodies = await together(
            self._upstream.twice(head.path, partial(self._made, head, part.selection, headers))
            for part in parts
        )
        return MadeSlice(selection, list(zip(parts, bodies, strict=True)))

    async def _made(self, head: Head, selection: Selection, headers: Mapping[str, str], anew: bool) -> bytes:
        query = [query_of(selection)]
        async with (
            self._upstream.slot(),
            self._upstream.answer(
                head.path, "/api/fetch/", head.etag, query=query, headers=headers, anew=anew
            ) as response,
        ):
            if response.content_type != CHUNK_TYPE:
                raise Unsupported(f"{self.name} makes no slices for others")
            body = await self._upstream.body(response)
            value = response.headers.get("Content-Digest")
        if len(body) <= INLINE_HASH_BYTES:
            check_digest(value, body, head, self.name)
        else:
            check = partial(check_digest, value, body, head, self.name)
            await asyncio.get_running_loop().run_in_executor(None, check)
        return body

    # -- how it is -------------------------------------------------------------------------------

    @property
    def condition(self) -> Condition:
        """What the last probe said, if nothing was heard since."""
        return self._upstream.condition

    @property
    def heard_at(self) -> float:
        """Loop time at which anything of it was last heard."""
        return self._upstream.heard_at

    @property
    def fetching_s(self) -> float | None:
        """What the host said of its own fetching when it was last probed; see `Upstream`."""
        return self._upstream.fetching_s

    async def probe(self) -> float | None:
        """Return how long the host takes for what it answers at once, in seconds; None if it does not."""
        return await self._upstream.probe()

    # -- extents ---------------------------------------------------------------------------------

    async def _verified(self, head: Head, runs: Sequence[Run], heard: Callable[[], None]) -> dict[int, bytes]:
        """Fetch runs in one request; what does not match its digest is fetched once more."""
        pieces = await self._upstream.twice(head.path, partial(self._transfer, head, runs, heard))
        extents = [extent for run in runs for extent in run.extents]
        bad = await self._rejected(head, extents, pieces)
        for again in plan(bad, self._gap_bytes):
            transfer = partial(self._transfer, head, again, heard)
            fetched = await self._upstream.twice(head.path, transfer, anew=True)
            still_bad = await self._rejected(head, [e for run in again for e in run.extents], fetched)
            if still_bad:
                extent = still_bad[0]
                raise IntegrityError(str(head.path), self.name, extent.offset, extent.size)
            pieces |= fetched
        self.stats.count("extents", len(pieces))
        return pieces

    async def _rejected(self, head: Head, extents: list[Extent], pieces: dict[int, bytes]) -> list[Extent]:
        def mismatches() -> list[Extent]:
            return [extent for extent in extents if digest(pieces[extent.number]) != extent.digest]

        if sum(extent.size for extent in extents) <= INLINE_HASH_BYTES:
            bad = mismatches()
        else:
            bad = await asyncio.get_running_loop().run_in_executor(None, mismatches)
        for extent in bad:
            self.stats.count("rejected")
            log.warning(
                "%s sent %d bytes of %s at offset %d that do not match their digest",
                self.name,
                extent.size,
                head.path,
                extent.offset,
            )
        return bad

    async def _transfer(
        self, head: Head, runs: Sequence[Run], heard: Callable[[], None], anew: bool
    ) -> dict[int, bytes]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._upstream.slot())
            heard()
            answer = self._upstream.answer(head.path, "/data/", head.etag, runs=runs, anew=anew)
            response = await stack.enter_async_context(answer)
            heard()
            reader: SingleReader | MultipartReader
            if len(runs) == 1:
                _check_single(response, runs[0], head.size)
                reader = SingleReader(runs[0].size)
            else:
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                reader = MultipartReader(boundary, runs, head.size)
            async for data in response.content.iter_any():
                self._upstream.received(len(data))
                heard()
                reader.feed(data)
            buffers = reader.close()
        return {
            extent.number: bytes(memoryview(buffer)[extent.offset - run.start : extent.stop - run.start])
            for run, buffer in zip(runs, buffers, strict=True)
            for extent in run.extents
        }


def _check_single(response: aiohttp.ClientResponse, run: Run, file_size: int) -> None:
    if response.status == 206:
        check_range(response.headers.get("Content-Range"), run, file_size)
    elif (run.start, run.stop) != (0, file_size):
        raise BadAnswer("the whole file where a range was asked for")


def _number_ranges(numbers: Sequence[int]) -> str:
    """Spell ascending numbers as ``1,4,7-9``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """Await all; the first failure cancels the others and is raised as it is."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
