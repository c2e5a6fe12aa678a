"""An origin that answers as a publisher does, and wrongly when told to: for tests of whoever reads from one.

`FaultyOrigin` serves any `Source` over a real socket. Each `Fault` spoils the next answers that match it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from caterva2.errors import Changed, IntegrityError, InvalidPath, NotFound, Unavailable
from caterva2.http.data import encode_pages, parse_known
from caterva2.model.manifest import Head
from caterva2.model.path import parse_path
from caterva2.model.selection import parse_selection
from caterva2.source.maker import CHUNK_TYPE, content_digest
from caterva2.source.protocol import Source
from caterva2.testing.making import make_part

_Answer = tuple[int, dict[str, str], bytes]
_Make = Callable[[web.Request, Head, "FaultKind | None"], Awaitable[_Answer]]
"""Makes an answer: status, headers, body."""

__all__ = ["Fault", "FaultKind", "FaultyOrigin", "Seen"]

FaultKind = Literal[
    "flip",
    "truncate",
    "short",
    "long",
    "etag",
    "no-etag",
    "stall",
    "stall-midway",
    "slow",
    "503",
    "500",
    "not-cached",
    "reset",
    "content-range",
    "whole",
    "missing-part",
    "no-end",
    "junk",
    "no-digest",
]
"""What goes wrong:

``flip`` a bit of the body; ``truncate`` the connection ends in the middle; ``short``/``long`` a byte too
few/many, with a Content-Length to match; ``etag`` another version's; ``no-etag`` none; ``stall`` no answer;
``stall-midway`` half an answer, then silence; ``slow`` pieces with pauses, right in the end; ``503``, ``500``
that status; ``not-cached`` a 504 that says so; ``reset`` the connection is closed without an answer;
``content-range`` of other bytes; ``whole`` Range is ignored; ``missing-part`` a part less in a multipart
answer; ``no-end`` its end mark is missing; ``junk`` a body that means nothing; ``no-digest`` a
slice without one.
"""

BOUNDARY = "caterva2-part"

SLOW_PIECES = 16
SLOW_PAUSE_S = 0.05


@dataclass(slots=True)
class Fault:
    """Spoils answers.

    Attributes
    ----------
    kind : FaultKind
    times : int
        How many answers it still spoils.
    route : str
        Only those of paths that begin so.
    where : float
        Where in the body a bit is flipped: 0 at its begin, 1 at its end. In the middle of a multipart answer
        of extents there is data, not the header of a part.
    """

    kind: FaultKind
    times: int = 1
    route: str = "/data/"
    where: float = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that arrived.

    Attributes
    ----------
    path, query : str
        Of the URL, decoded.
    ranges : str or None
        The ``Range`` header.
    token : str or None
        The ``Authorization`` header.
    """

    path: str
    query: str
    ranges: str | None
    token: str | None


@dataclass
class FaultyOrigin:
    """Serves a source over HTTP on a free port of the loopback interface; an async context manager.

    Attributes
    ----------
    source : Source
    token : str or None
        Bearer token that every request needs.
    faults : list of Fault
        Add to it at any time.
    seen : list of Seen
        All requests so far.
    under_way : int
        Requests that are under way: neither answered nor left by who asked.
    most_at_once : int
        Most of them at a time.
    spoilt : Counter
        How many answers were spoilt, by kind of fault.
    sent_bytes : int
        Of bodies of data and manifests.
    gate : asyncio.Event
        Data is answered while it is set.
    health : dict
        What ``/health`` answers.
    url : str
        Where it listens, once entered.
    """

    source: Source
    token: str | None = None
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    spoilt: Counter[FaultKind] = field(default_factory=Counter)
    sent_bytes: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    health: dict[str, object] = field(default_factory=dict)
    url: str = ""
    _runner: web.AppRunner | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self.gate.set()
        app = web.Application()
        app.router.add_get("/api/manifest/{path:.*}", self._manifest)
        app.router.add_get("/data/{path:.*}", self._data)
        app.router.add_get("/api/fetch/{path:.*}", self._fetch)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self.gate.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # -- answers ---------------------------------------------------------------------------------

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.health)

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._manifest_answer)

    async def _data(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._data_answer)

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._slice_answer)

    async def _answer(self, request: web.Request, make: _Make) -> web.StreamResponse:
        self.seen.append(
            Seen(
                request.path,
                request.query_string,
                request.headers.get("Range"),
                request.headers.get("Authorization"),
            )
        )
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            return await self._spoilt(request, make)
        except NotFound as error:
            return _problem(404, "not-found", detail=str(error))
        except Changed as error:
            wanted, current = error.wanted_etag, error.current_etag
            return _problem(412, "changed", detail=str(error), wanted_etag=wanted, current_etag=current)
        except (Unavailable, IntegrityError) as error:
            return _problem(503, "unavailable", detail=str(error))
        finally:
            self.under_way -= 1

    async def _spoilt(self, request: web.Request, make: _Make) -> web.StreamResponse:
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _problem(401, "unauthorized")
        found = self._fault(request.path)
        fault = None if found is None else found.kind
        match fault:
            case "stall":
                await self._stop.wait()
            case "reset":
                assert request.transport is not None
                request.transport.close()
            case "503":
                return _problem(503, "unavailable", headers={"Retry-After": "7"}, detail="busy")
            case "500":
                return _problem(500, "error", detail="broken")
            case "not-cached":
                return _problem(504, "not-cached", detail="not all of it is here")
        try:
            path = parse_path(request.match_info["path"])
        except InvalidPath as error:
            return _problem(400, "invalid-path", detail=str(error))
        etag = request.headers.get("If-Match", "").strip('"') or None
        head = await self.source.head(path, etag)
        status, headers, body = await make(request, head, fault)
        headers["ETag"] = f'"{head.etag}"'
        if fault == "etag":
            headers["ETag"] = '"00000000000000000000000000000000"'
        elif fault == "no-etag":
            del headers["ETag"]
        if fault in ("truncate", "stall-midway"):
            return await self._half(request, status, headers, body, stall=fault == "stall-midway")
        if fault == "slow":
            return await self._slowly(request, status, headers, body)
        self.sent_bytes += len(body)
        return web.Response(status=status, headers=headers, body=_spoil(body, found))

    def _fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and path.startswith(fault.route):
                fault.times -= 1
                self.spoilt[fault.kind] += 1
                return fault
        return None

    async def _half(
        self, request: web.Request, status: int, headers: dict[str, str], body: bytes, *, stall: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if stall:
            await self._stop.wait()
        assert request.transport is not None
        request.transport.close()
        return response

    async def _slowly(
        self, request: web.Request, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        piece = -(-len(body) // SLOW_PIECES) or 1
        for start in range(0, len(body), piece):
            await asyncio.sleep(SLOW_PAUSE_S)
            await response.write(body[start : start + piece])
            self.sent_bytes += len(body[start : start + piece])
        return response

    async def _manifest_answer(self, request: web.Request, head: Head, _fault: FaultKind | None) -> _Answer:
        headers = {"Content-Type": "application/vnd.caterva2.manifest+msgpack"}
        if "pages" not in request.query:
            return 200, headers, head.encode()
        numbers: list[int] = []
        for part in request.query["pages"].split(","):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
        pages = await self.source.pages(head, numbers)
        known = parse_known(request.query.get("known"), len(numbers))
        return 200, headers, encode_pages(pages, known)

    async def _data_answer(self, request: web.Request, head: Head, fault: FaultKind | None) -> _Answer:
        await self.gate.wait()
        spans = _spans(request.headers.get("Range"))
        if not spans or fault == "whole":
            return 200, {}, await self._bytes(head, 0, head.size)
        shift = 1 if fault == "content-range" else 0
        ranges = [f"bytes {first + shift}-{last + shift}/{head.size}" for first, last in spans]
        bodies = [await self._bytes(head, first, last + 1) for first, last in spans]
        if len(spans) == 1:
            return 206, {"Content-Range": ranges[0]}, bodies[0]
        if fault == "missing-part":
            bodies.pop()
        parts = [
            f"--{BOUNDARY}\r\nContent-Type: text/plain\r\nContent-Range: {span}\r\n\r\n".encode()
            + body
            + b"\r\n"
            for span, body in zip(ranges, bodies, strict=False)
        ]
        end = b"" if fault == "no-end" else f"--{BOUNDARY}--\r\n".encode()
        content_type = {"Content-Type": f"multipart/byteranges; boundary={BOUNDARY}"}
        return 206, content_type, b"".join(parts) + end

    async def _slice_answer(self, request: web.Request, head: Head, fault: FaultKind | None) -> _Answer:
        await self.gate.wait()
        assert head.shape is not None
        body = await make_part(self.source, head, parse_selection(request.query["slice_"], head.shape))
        headers = {"Content-Type": CHUNK_TYPE}
        if fault != "no-digest":
            headers["Content-Digest"] = content_digest(body)
        return 200, headers, body

    async def _bytes(self, head: Head, start: int, stop: int) -> bytes:
        return b"".join([piece async for piece in self.source.stream(head, start, stop)])


def _spans(value: str | None) -> Sequence[tuple[int, int]]:
    if value is None:
        return []
    spans = (part.partition("-") for part in value.removeprefix("bytes=").split(","))
    return [(int(first), int(last)) for first, _, last in spans]


def _spoil(body: bytes, fault: Fault | None) -> bytes:
    if fault is None:
        return body
    match fault.kind:
        case "flip" if body:
            at = min(int(len(body) * fault.where), len(body) - 1)
            return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        case "short":
            return body[:-1]
        case "long":
            return body + b"!"
        case "junk":
            return b"\xc1" * 64
    return body


def _problem(
    status: int, slug: str, headers: dict[str, str] | None = None, **data: str | None
) -> web.Response:
    return web.json_response(
        {"type": f"urn:caterva2:problem:{slug}", "title": slug, "status": status, **data},
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )
