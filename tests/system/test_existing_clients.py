"""What reads Blosc2 over HTTP already reads from our subscriber, unchanged: the released ``blosc2``."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import ExitStack

import blosc2
import numpy as np
import pytest
import urllib3

from caterva2.config import Token
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.samples import write_example

TOKEN = "correct-horse"
TWO = np.arange(200, dtype=np.uint16).reshape(10, 20)
RECORDS = np.array([(1, 2.5), (3, -1.0)], dtype=[("a", "<i4"), ("b", "<f8")])
NOISE = np.random.default_rng(7).random((40, 250, 250), np.float32)  # 10 MB, hardly compressible


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = write_example(tmp_path_factory.mktemp("root"))
    write_array(root / "records.b2nd", RECORDS)
    write_array(root / "scalar.b2nd", np.float32(2.5))
    # blosc2 asks for ranges where that saves a MiB of a chunk
    write_array(root / "noise.b2nd", NOISE, chunks=(20, 250, 250), blocks=(5, 25, 25), attrs={"units": "K"})
    return root


@pytest.fixture(scope="module")
def running(root, tmp_path_factory) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": root})) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(root, tmp_path_factory) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path_factory.mktemp("s"), {"foo": root}, token=Token(TOKEN))) as running:
        yield running


@pytest.fixture
def url(running) -> str:
    return running.url


def fetched_bytes(running: RunningCluster) -> int:
    """Return how much the subscriber has got from the publisher so far."""
    with urllib3.PoolManager() as http:
        text = http.request("GET", f"{running.url}/metrics").data.decode()
    (line,) = [
        line for line in text.splitlines() if line.startswith("caterva2_subscriber_upstream_bytes_total")
    ]
    return int(float(line.split()[-1]))


@pytest.fixture
def over_fsspec() -> Iterator[None]:
    """Let connections that fsspec keeps pooled outlive the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def test_c2array(url) -> None:
    array = blosc2.C2Array("foo/dir1/ds-2d.b2nd", urlbase=url)
    assert (array.shape, array.chunks, array.blocks, array.dtype) == ((10, 20), (5, 5), (2, 2), np.uint16)
    for key in [(), (slice(3, 7), 5), ([1, 5], slice(None)), slice(0, 0), -1]:
        assert np.array_equal(array[key], TWO[key]), key
    assert np.array_equal(array.slice((slice(2, 5), slice(1, 4)))[:], TWO[2:5, 1:4])
    assert len(array.get_chunk(0)) > 32
    assert blosc2.C2Array("foo/scalar.b2nd", urlbase=url)[()] == 2.5
    assert dict(blosc2.C2Array("foo/noise.b2nd", urlbase=url).attrs) == {"units": "K"}
    with pytest.raises(FileNotFoundError):
        blosc2.C2Array("foo/nothing.b2nd", urlbase=url)


@pytest.mark.parametrize("lazy", [False, True])
def test_open_of_a_urlpath(url, lazy: bool) -> None:
    array = blosc2.open(blosc2.URLPath("foo/dir1/ds-2d.b2nd", urlbase=url), mode="r", lazy=lazy)
    assert isinstance(array, blosc2.RemoteArray if lazy else blosc2.C2Array)
    assert np.array_equal(array[3:7, 5], TWO[3:7, 5])


def test_a_proxy_moves_what_is_read_once(running, tmp_path) -> None:
    array = blosc2.C2Array("foo/noise.b2nd", urlbase=running.url)
    proxy = blosc2.Proxy(array, urlpath=str(tmp_path / "proxy.b2nd"), mode="w")
    key = (slice(3, 8), slice(10, 20), slice(30, 40))
    assert np.array_equal(proxy[key], NOISE[key])
    moved = array.traffic.nbytes
    assert 0 < moved < NOISE.nbytes / 10
    assert np.array_equal(proxy[key], NOISE[key])
    assert array.traffic.nbytes == moved
    assert np.array_equal(proxy.fetch((slice(0, 5),))[0:5], NOISE[0:5])


async def test_a_proxy_fetches_chunks_asynchronously(url) -> None:
    array = blosc2.C2Array("foo/dir1/ds-2d.b2nd", urlbase=url)
    proxy = await blosc2.Proxy(array).afetch((slice(0, 5),))
    assert np.array_equal(await asyncio.to_thread(lambda: proxy[0:5]), TWO[0:5])
    assert await array.aget_chunk(1) == await asyncio.to_thread(array.get_chunk, 1)
    await array.aclose()


def test_lazy_expressions_over_remote_operands(url) -> None:
    path = blosc2.URLPath("foo/dir1/ds-2d.b2nd", urlbase=url)
    a, b = blosc2.open(path), blosc2.open(path)
    assert np.array_equal((a + b).compute()[:], 2 * TWO)
    assert np.array_equal((a + b)[2:4, 3], 2 * TWO[2:4, 3])
    expression = blosc2.lazyexpr("a + 2 * b", {"a": a, "b": b})
    assert np.array_equal(expression.compute()[:], 3 * TWO)
    assert np.array_equal(expression.compute(item=(slice(0, 2), slice(4, 6)))[:], 3 * TWO[0:2, 4:6])
    assert np.array_equal(blosc2.lazyexpr("sum(a, axis=0)", {"a": a})[:], TWO.sum(axis=0))
    assert np.array_equal((a * np.float64(0.5)).compute()[:], TWO * 0.5)


@pytest.mark.usefixtures("over_fsspec")
def test_open_of_a_url_moves_ranges_only(running) -> None:
    before = fetched_bytes(running)
    array = blosc2.open(f"{running.url}/data/foo/noise.b2nd", lazy=True)
    key = (slice(22, 24), slice(130, 140), slice(200, 210))
    assert np.array_equal(array[key], NOISE[key])
    assert array.traffic.nbytes < NOISE.nbytes / 50
    assert 0 < fetched_bytes(running) - before < NOISE.nbytes / 50
    between = fetched_bytes(running)
    again = blosc2.open(f"{running.url}/data/foo/noise.b2nd", lazy=True)
    assert np.array_equal(again[key], NOISE[key])
    assert fetched_bytes(running) == between  # another reader: from the cache


@pytest.mark.usefixtures("over_fsspec")
def test_frames_and_records_by_their_url(url, tmp_path) -> None:
    frame = blosc2.open(f"{url}/data/foo/ds-hello.b2frame", cache_dir=str(tmp_path))
    assert frame[6:11] == b"world"
    records = blosc2.open(f"{url}/data/foo/records.b2nd", lazy=True)
    assert records[:].tolist() == RECORDS.tolist()


def test_context_with_a_default_server(url) -> None:
    with blosc2.c2context(urlbase=url):
        assert blosc2.C2Array("foo/ds-1d.b2nd")[3] == 3


def test_with_a_token_as_password(guarded) -> None:
    with blosc2.c2context(urlbase=guarded.url, username="anybody", password=TOKEN):
        assert blosc2.C2Array("foo/ds-1d.b2nd")[3] == 3
        array = blosc2.open(blosc2.URLPath("foo/dir1/ds-2d.b2nd"))
        assert np.array_equal((array + array).compute()[:], 2 * TWO)


def test_with_a_token_as_cookie(guarded) -> None:
    path = blosc2.URLPath("foo/dir1/ds-2d.b2nd", urlbase=guarded.url, auth_token=f"caterva2={TOKEN}")
    assert np.array_equal(blosc2.Proxy(blosc2.open(path))[2:4], TWO[2:4])
    assert np.array_equal(blosc2.open(path, lazy=True)[2:4], TWO[2:4])


@pytest.mark.usefixtures("over_fsspec")
def test_open_of_a_url_with_a_token(guarded) -> None:
    headers = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
    array = blosc2.open(f"{guarded.url}/data/foo/ds-1d.b2nd", lazy=True, storage_options=headers)
    assert array[3] == 3


def test_without_the_token_nothing_is_read(guarded) -> None:
    with pytest.raises(Exception, match="401"):
        blosc2.C2Array("foo/ds-1d.b2nd", urlbase=guarded.url)
    with (
        pytest.raises(Exception, match="401"),
        blosc2.c2context(urlbase=guarded.url, username="anybody", password="wrong-horse"),
    ):
        pass


def test_where_no_token_is_needed_there_is_no_login(url) -> None:
    with ExitStack() as stack, pytest.raises(Exception, match="404"):
        stack.enter_context(blosc2.c2context(urlbase=url, username="anybody", password="x"))
