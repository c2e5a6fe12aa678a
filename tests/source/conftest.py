import random

import aiohttp
import pytest

from caterva2.model.extents import FILE_EXTENT_BYTES
from caterva2.model.path import DatasetPath
from caterva2.source.http import HttpSource, UpstreamStats
from caterva2.testing.contracts import all_extents
from caterva2.testing.faults import FaultyOrigin
from caterva2.testing.origin import MemoryOrigin

PATH = DatasetPath("foo", "dir/some data.bin")
DATA = random.Random(2).randbytes(24 * FILE_EXTENT_BYTES + 100)


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def server():
    async with FaultyOrigin(MemoryOrigin({PATH: DATA})) as server:
        yield server


@pytest.fixture
def source_of(session):
    """Make a source of a URL, with other settings than usual."""

    def source_of(url, **options):
        settings = {"token": None, "gap_bytes": 0, "requests": 4, "timeout_s": 5.0, **options}
        return HttpSource(url, session, stats=UpstreamStats(), **settings)

    return source_of


@pytest.fixture
def path():
    return PATH


@pytest.fixture
def data():
    return DATA


@pytest.fixture
def data_requests(server):
    """List the requests for data so far."""
    return lambda: [seen for seen in server.seen if seen.path.startswith("/data/")]


@pytest.fixture
def source(server, source_of):
    return source_of(server.url)


@pytest.fixture
async def head(source):
    return await source.head(PATH)


@pytest.fixture
async def extents(source, head):
    return await all_extents(source, head)
