import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import blosc2
import numpy as np
import pytest

from caterva2.cache.cached import CachedSource
from caterva2.model.extents import FILE_EXTENT_BYTES
from caterva2.model.path import DatasetPath
from caterva2.testing.origin import MemoryOrigin

PAGE = FILE_EXTENT_BYTES


@pytest.fixture
def executor():
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def path():
    return DatasetPath("foo", "dir/data.bin")


@pytest.fixture
def data():
    return random.Random(4).randbytes(20 * PAGE + 123)


@pytest.fixture
def origin(path, data):
    return MemoryOrigin({path: data})


@pytest.fixture
def opened(tmp_path, origin, executor):
    """Open the cache of a directory; what is opened again finds what was there."""

    @asynccontextmanager
    async def opened(quota_bytes=None, source=origin, directory=tmp_path / "cache", **options):
        cached = CachedSource(
            directory,
            current=origin.entry,
            origin=lambda path: source,
            quota_bytes=quota_bytes,
            executor=executor,
            **options,
        )
        await cached.open()
        try:
            yield cached
        finally:
            await cached.close()

    return opened


@pytest.fixture
async def cached(opened):
    async with opened() as cached:
        yield cached


@pytest.fixture
def mirror_files(tmp_path):
    """List the files of the mirrors."""
    return lambda: sorted((tmp_path / "cache" / "mirrors").iterdir())


@pytest.fixture
def until():
    """Wait for a condition, within a bound."""

    async def until(condition, within_s=5.0):
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.001)

    return until


@pytest.fixture(scope="session")
def array_bytes():
    """An array of chunks stored in blocks, whole, and not at all, with something behind them."""
    rng = np.random.default_rng(5)
    values = np.zeros((1200, 400))
    values[:600] = rng.random((600, 400))
    values[600:900, 200:] = np.arange(300 * 200).reshape(300, 200)
    array = blosc2.asarray(values, chunks=(300, 200), blocks=(50, 100), cparams={"nthreads": 1})
    array.schunk.vlmeta["unit"] = "K"
    return array.to_cframe()


@pytest.fixture(scope="session")
def frame_bytes():
    frame = blosc2.SChunk(chunksize=100_000, data=random.Random(6).randbytes(950_000), contiguous=True)
    return frame.to_cframe()
