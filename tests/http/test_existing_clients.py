"""What reads Blosc2 over HTTP already reads from us, unchanged."""

from __future__ import annotations

import asyncio
import warnings

import blosc2
import numpy as np
import pytest

ARRAY = np.arange(60 * 50, dtype=np.int32).reshape(60, 50)


@pytest.fixture
async def url(running) -> str:
    return running.url


async def test_c2array(url) -> None:
    def read() -> None:
        array = blosc2.C2Array("foo/dir/a.b2nd", urlbase=url)
        assert (array.shape, array.chunks, array.blocks, array.dtype) == (
            (60, 50),
            (20, 25),
            (5, 5),
            np.int32,
        )
        assert np.array_equal(array[:], ARRAY)
        assert np.array_equal(array[3:7, 5], ARRAY[3:7, 5])
        assert np.array_equal(array[[1, 5], :], ARRAY[[1, 5], :])
        assert len(array.get_chunk(0)) > 32
        scalar = blosc2.C2Array("foo/scalar.b2nd", urlbase=url)
        assert scalar[()] == 2.5
        with pytest.raises(FileNotFoundError):
            blosc2.C2Array("foo/nothing.b2nd", urlbase=url)

    await asyncio.to_thread(read)


async def test_a_proxy_on_it(url, tmp_path) -> None:
    def read() -> None:
        array = blosc2.C2Array("foo/dir/a.b2nd", urlbase=url)
        proxy = blosc2.Proxy(array, urlpath=str(tmp_path / "proxy.b2nd"), mode="w")
        assert np.array_equal(proxy[10:30, 20:30], ARRAY[10:30, 20:30])

    await asyncio.to_thread(read)


async def test_blosc2_open_of_a_url(url) -> None:
    def read() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # its pooled connections outlive the test
            array = blosc2.open(f"{url}/data/foo/dir/a.b2nd", lazy=True)
            assert np.array_equal(array[10:30, 20:30], ARRAY[10:30, 20:30])

    await asyncio.to_thread(read)
