"""Every source keeps the one contract."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
import blosc2
import numpy as np
import pytest

from caterva2.cache.cached import CachedSource
from caterva2.model.extents import FILE_EXTENT_BYTES
from caterva2.model.path import DatasetPath
from caterva2.source.hedging import Budget
from caterva2.source.http import HttpSource, UpstreamStats
from caterva2.source.several import SeveralSources
from caterva2.source.standing import SourcesStats, Standing
from caterva2.testing.contracts import SourceContract
from caterva2.testing.faults import FaultyOrigin
from caterva2.testing.origin import MemoryOrigin


@pytest.fixture
def published():
    random_bytes = random.Random(1).randbytes
    files = {
        "readme.md": b"# hello\n",
        "empty": b"",
        "one page.bin": random_bytes(FILE_EXTENT_BYTES),
        "dir/ünïcode %2F?#&.bin": random_bytes(5 * FILE_EXTENT_BYTES + 17),
        "large.bin": random_bytes(130 * FILE_EXTENT_BYTES + 1),
    }
    values = np.zeros((700, 500))
    values[:400] = np.random.default_rng(1).random((400, 500))
    array = blosc2.asarray(values, chunks=(200, 300), blocks=(50, 100), cparams={"nthreads": 1})
    files["dir/array.b2nd"] = array.to_cframe()
    frame = blosc2.SChunk(chunksize=10_000, data=random_bytes(95_000), contiguous=True)
    files["dir/frame.b2frame"] = frame.to_cframe()
    return {DatasetPath("foo", name): data for name, data in files.items()}


@pytest.fixture
def origin(published):
    return MemoryOrigin(published)


@pytest.fixture
async def over_http(origin):
    async with FaultyOrigin(origin) as server, aiohttp.ClientSession() as session:
        yield HttpSource(
            server.url,
            session,
            token=None,
            gap_bytes=16 * 1024,
            requests=8,
            timeout_s=5.0,
            stats=UpstreamStats(),
        )


class TestMemoryOrigin(SourceContract):
    @pytest.fixture
    def source(self, origin):
        return origin


class TestHttpSource(SourceContract):
    @pytest.fixture
    def source(self, over_http):
        return over_http


class TestSeveralSources(SourceContract):
    @pytest.fixture
    async def source(self, origin):
        stats = SourcesStats()
        async with (
            FaultyOrigin(origin) as far,
            FaultyOrigin(origin) as near,
            aiohttp.ClientSession() as session,
        ):
            standings = []
            for server, kind, round_trip_s in ((far, "origin", 0.02), (near, "further", 0.001)):
                source = HttpSource(
                    server.url,
                    session,
                    token=None,
                    gap_bytes=16 * 1024,
                    requests=8,
                    timeout_s=5.0,
                    stats=UpstreamStats(),
                )
                standings.append(Standing(source, kind, 8, stats))
                standings[-1].is_as_far_as(round_trip_s)
            yield SeveralSources(standings[0], standings[1:], Budget(), stats)


@asynccontextmanager
async def cache(directory, current, upstream, quota_bytes=None):
    with ThreadPoolExecutor(2) as executor:
        cached = CachedSource(
            directory,
            current=current,
            origin=lambda path: upstream,
            quota_bytes=quota_bytes,
            executor=executor,
        )
        await cached.open()
        yield cached
        await cached.close()


class TestWhatIsHere(SourceContract):
    """Of a cache that has everything."""

    @pytest.fixture
    async def source(self, tmp_path, origin, published):
        async with cache(tmp_path, origin.entry, origin) as cached:
            for path in published:
                await cached.fill(await cached.head(path))
            calls = dict(origin.calls)
            yield cached.here
            assert origin.calls == calls


class TestCachedSource(SourceContract):
    @pytest.fixture
    async def source(self, tmp_path, origin, over_http):
        async with cache(tmp_path, origin.entry, over_http) as cached:
            yield cached


class TestCachedSourceThatPassesThrough(SourceContract):
    @pytest.fixture
    async def source(self, tmp_path, origin):
        async with cache(tmp_path, origin.entry, origin, quota_bytes=0) as cached:
            yield cached
        assert cached.stats.cached_bytes == 0
