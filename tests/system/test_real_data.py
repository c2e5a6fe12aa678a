"""Real climate fields, and an array large enough for partial caching to show."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest

import caterva2
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.samples import write_climate, write_large


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    write_climate(root / "climate")
    assert write_large(root / "waves.b2nd").stat().st_size > 200e6
    return root


@pytest.fixture
def running(data, tmp_path) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path / "state", {"foo": data})) as running:
        yield running


def test_one_element_of_200_mb_moves_less_than_300_kb_and_the_second_read_nothing(data, running) -> None:
    truth = blosc2.open(str(data / "waves.b2nd"), mode="r")
    upstream = running.cluster.subscriber.origins.stats
    with caterva2.connect(running.url) as client:
        array = client["foo/waves.b2nd"]
        assert array[311, 200, 77] == truth[311, 200, 77]
        assert upstream.bytes < 300_000
        moved, requests = upstream.bytes, upstream.requests
        assert array[311, 200, 77] == truth[311, 200, 77]
        assert client.info("foo/waves.b2nd")["cached_bytes"] < 300_000
        assert len(client.list("foo")) == 3
        assert (upstream.bytes, upstream.requests) == (moved, requests)


def test_slices_of_the_large_array_are_right_whatever_is_cached(data, running) -> None:
    truth = blosc2.open(str(data / "waves.b2nd"), mode="r")
    random = np.random.default_rng(5)
    with caterva2.connect(running.url) as client:
        array = client["foo/waves.b2nd"]
        for _ in range(30):
            start = random.integers(0, 500, 3)
            stop = start + random.integers(1, [40, 60, 60])
            key = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
            assert np.array_equal(array[key], truth[key])


def test_climate_fields_read_and_download_as_published(data, running, tmp_path) -> None:
    with caterva2.connect(running.url) as client:
        for name in ("air_temperature", "surface_temperature"):
            path = f"foo/climate/{name}.b2nd"
            file = data / "climate" / f"{name}.b2nd"
            truth = blosc2.open(str(file), mode="r")
            array = client[path]
            assert array.attrs["units"] == "K"
            assert np.array_equal(array[-1], truth[-1], equal_nan=True)
            assert np.array_equal(array[::7, 3:9, -5], truth[::7, 3:9, -5], equal_nan=True)
            record = client.download(path, tmp_path)
            assert Path(record.file).read_bytes() == file.read_bytes()


def test_readers_in_parallel_get_what_one_reader_gets(data, running) -> None:
    truth = blosc2.open(str(data / "waves.b2nd"), mode="r")[250]
    wrong: list[str] = []

    def read(client: caterva2.Client) -> None:
        if not np.array_equal(client["foo/waves.b2nd"][250], truth):
            wrong.append(threading.current_thread().name)

    with caterva2.connect(running.url) as client:
        readers = [threading.Thread(target=read, args=(client,)) for _ in range(8)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        plane_bytes = running.cluster.subscriber.origins.stats.bytes
        info = client.info("foo/waves.b2nd")
    assert not wrong
    assert plane_bytes < 1.2 * info["cached_bytes"] + 300_000, "extents were fetched more than once"
