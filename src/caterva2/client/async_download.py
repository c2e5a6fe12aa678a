"""Downloads on an event loop: the same part files as those of `caterva2.client.download`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from caterva2.client import protocol
from caterva2.client.async_transport import AsyncBody, AsyncTransport
from caterva2.client.async_versions import next_etag
from caterva2.client.dataset import check_range
from caterva2.client.download import ATTEMPTS, PAUSE_S, PartFile, Version, version_of
from caterva2.client.records import Download
from caterva2.errors import Caterva2Error, Changed, Unavailable

__all__ = ["download", "fill"]

Progress = Callable[[int, int], None]

PIECE_BYTES = 1024 * 1024
"""So much is gathered before a thread writes it, in bytes."""


async def download(
    transport: AsyncTransport, path: str, file: Path, progress: Progress | None = None
) -> Download:
    """Save a dataset as a file; see `caterva2.client.Client.download`."""
    began = time.perf_counter()
    version = await _current(transport, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    fetched = 0
    with PartFile(file) as part:
        for left in reversed(range(ATTEMPTS)):
            before = part.begin(version)
            try:
                await fill(transport, version, part, progress)
                fetched += part.size() - before
                break
            except Changed as error:
                fetched += part.size() - before
                if not left:
                    raise
                if error.current_etag is None:
                    await next_etag(transport, path, version.etag)
                version = await _current(transport, path)
        part.finish(version)
    return Download(path, str(part.file), version.size, fetched, time.perf_counter() - began)


async def _current(transport: AsyncTransport, path: str) -> Version:
    return version_of(path, (await transport.call(protocol.ask_manifest(path))).body)


async def fill(
    transport: AsyncTransport, version: Version, part: PartFile, progress: Progress | None
) -> None:
    """Return when all is there, in as many requests as the connection needs."""
    failures = 0
    while (there := part.size()) < version.size:
        try:
            await _append(transport, version, part, progress)
        except Unavailable as error:
            failures = failures + 1 if part.size() == there else 0
            if failures >= ATTEMPTS:
                kept = (
                    f"{part.size():,} of {version.size:,} bytes are kept, a next download goes on from there"
                )
                raise Unavailable(f"{error}; {kept}", error.retry_after_s) from error
            await asyncio.sleep(PAUSE_S * failures)


async def _append(
    transport: AsyncTransport, version: Version, part: PartFile, progress: Progress | None
) -> None:
    """Add what one request brings."""
    there = part.size()
    async with transport.open(protocol.ask_download(version.path, there, version.etag)) as body:
        check_range(body)
        async for piece in _gathered(body):
            if there + len(piece) > version.size:
                raise Caterva2Error(f"{transport.url} sent more of {version.path!r} than there is")
            await _in_thread(part.append, piece)
            there += len(piece)
            if progress is not None:
                progress(there, version.size)
    if there < version.size:
        raise Unavailable(f"the connection to {transport.url} broke")


async def _gathered(body: AsyncBody) -> AsyncIterator[bytes]:
    """Yield a body in pieces of `PIECE_BYTES`; what came before it broke, too."""
    gathered = bytearray()
    try:
        async for piece in body.pieces():
            gathered += piece
            if len(gathered) >= PIECE_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except Unavailable:
        yield bytes(gathered)
        raise
    yield bytes(gathered)


async def _in_thread(work: Callable[[bytes], None], data: bytes) -> None:
    """Do some work in a thread, to its end also if this is cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(work, data))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
