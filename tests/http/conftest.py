"""A real server on a real port, over real files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from caterva2.config import Address, Token
from caterva2.frame.write import write_array, write_frame, write_slabs
from caterva2.http.app import build_app
from caterva2.http.catalogue import catalogue_router
from caterva2.http.data import data_routes
from caterva2.http.events import EventStreams
from caterva2.http.metrics import Metrics
from caterva2.http.server import Server
from caterva2.model.catalogue import Catalogue
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry
from caterva2.source.slices import Reader
from caterva2.testing.memory import FileSource

LIMIT_BYTES = 1 << 20

ARRAY = np.arange(60 * 50, dtype=np.int32).reshape(60, 50)
RECORDS = np.array([(1, 2.5, "é"), (3, -1.0, "xy")], dtype=[("a", "i4"), ("b", "f8"), ("c", "U3")])
TEXT = bytes(range(256)) * 1200  # 307,200 bytes: two extents


class Files:
    """Many `FileSource`s as one source, and what the data routes need."""

    def __init__(self) -> None:
        self.sources: dict[DatasetPath, FileSource] = {}
        self.catalogue = Catalogue()
        self.catalogue.set_root("foo", url="http://127.0.0.1:1", title="Test")
        self.catalogue.set_state("foo", "online")
        self.catalogue.confirm("foo")

    async def add(self, file: Path, name: str, generation: int = 1) -> Head:
        path = DatasetPath("foo", name)
        self.sources[path] = source = FileSource(file, path)
        head = await source.head(path)
        shape, dtype = head.meta.get("shape"), head.meta.get("dtype")
        extent = tuple(shape) if shape is not None else None
        mtime = head.mtime_ns / 1e9
        entry = Entry(head.etag, generation, head.size, head.kind, mtime, extent, dtype)
        self.catalogue.apply("foo", name, entry)
        return head

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        self.catalogue.entry(path)
        return await self.sources[path].head(path, etag)

    async def pages(self, head, numbers):
        return await self.sources[head.path].pages(head, numbers)

    async def read(self, head, extents):
        return await self.sources[head.path].read(head, extents)

    async def prepare(self, head, groups) -> None:
        """Do nothing: all is here."""

    def stream(self, head, start, stop):
        return self.sources[head.path].stream(head, start, stop)

    # -- DataService

    @property
    def source(self) -> Files:
        return self

    def local_state(self, path: DatasetPath) -> dict[str, Any]:
        return {}


class Running:
    """A server and a client to it."""

    def __init__(self, files: Files, server: Server, session: aiohttp.ClientSession) -> None:
        self.files, self.server, self.session = files, server, session
        self.url = server.address.url

    async def get(self, target: str, method: str = "GET", **options: Any) -> tuple[int, Any, bytes]:
        """Send a target as it is, without normalising it; return status, headers, body."""
        from yarl import URL

        url = URL(self.url + target, encoded=True)
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            return response.status, response.headers, await response.read()

    async def problem(self, target: str, method: str = "GET", **options: Any) -> tuple[int, dict[str, Any]]:
        """Return status and problem, and check its form."""
        status, headers, body = await self.get(target, method, **options)
        assert headers["Content-Type"] == "application/problem+json", (status, body[:200])
        parsed = json.loads(body)
        assert parsed["status"] == status
        assert parsed["type"].startswith("urn:caterva2:problem:")
        assert parsed["detail"]
        return status, parsed


async def serve(files: Files, token: Token | None = None) -> AsyncIterator[Running]:
    with ThreadPoolExecutor(2) as executor:
        files.reader = Reader(files, executor, limit_bytes=LIMIT_BYTES)
        streams = EventStreams(files.catalogue)
        app = build_app(
            title="test",
            routes=data_routes(files),
            routers=[catalogue_router(files.catalogue, streams)],
            metrics=Metrics("test"),
            token=token,
            health=dict,
        )
        async with (
            Server(app, Address("127.0.0.1", 0), on_stop=streams.stop) as server,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        ):
            yield Running(files, server, session)


@pytest.fixture
async def files(tmp_path: Path) -> Files:
    files = Files()
    await files.add(write_array(tmp_path / "a.b2nd", ARRAY, chunks=(20, 25), blocks=(5, 5)), "dir/a.b2nd")
    await files.add(write_array(tmp_path / "r.b2nd", RECORDS), "records.b2nd")
    zeros = write_slabs(tmp_path / "z.b2nd", (4000, 4000), "f8", [], chunks=(1000, 1000))
    await files.add(zeros, "zeros.b2nd")
    await files.add(write_array(tmp_path / "s.b2nd", np.float32(2.5)), "scalar.b2nd")
    await files.add(write_frame(tmp_path / "f.b2frame", b"0123456789" * 100), "f.b2frame")
    (tmp_path / "text é #?%.bin").write_bytes(TEXT)
    await files.add(tmp_path / "text é #?%.bin", "text é #?%.bin")
    (tmp_path / "empty").write_bytes(b"")
    await files.add(tmp_path / "empty", "empty")
    return files


@pytest.fixture
async def running(files: Files) -> AsyncIterator[Running]:
    async for one in serve(files):
        yield one


@pytest.fixture
async def guarded(files: Files) -> AsyncIterator[Running]:
    async for one in serve(files, Token("correct-horse")):
        yield one


@pytest.fixture(name="serve")
def _serve():
    return serve
