"""Arrays of dask over real services: graphs, what is moved for them, other processes, versions."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
import xarray as xr
from dask.tokenize import tokenize

import caterva2
from caterva2.errors import Changed
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster

FIELD = np.random.default_rng(3).integers(-1000, 1000, (45, 64), np.int32)
CHUNKS = (20, 16)


@pytest.fixture
def running(tmp_path) -> Iterator[RunningCluster]:
    root = tmp_path / "root"
    root.mkdir()
    write_array(root / "x.b2nd", FIELD, chunks=CHUNKS, blocks=(10, 16))
    write_array(root / "scalar.b2nd", np.array(2.5))
    write_array(root / "empty.b2nd", np.zeros((0, 3), np.int8))
    with running_cluster(Cluster(tmp_path / "state", {"foo": root})) as running:
        yield running


@pytest.fixture
def array(running) -> caterva2.Array:
    return caterva2.open(f"{running.url}/data/foo/x.b2nd")


def replace(root: Path, running: RunningCluster, old: str) -> None:
    write_array(root / "x.b2nd", FIELD + 1, chunks=CHUNKS)
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: entries["x.b2nd"].etag != old)


def requests(running: RunningCluster) -> float:
    return running.cluster.subscriber.origins.stats.requests


def test_the_grid_is_that_of_the_array(array) -> None:
    lazy = array.to_dask()
    assert lazy.chunks == ((20, 20, 5), (16,) * 4)
    assert (lazy.shape, lazy.dtype) == (array.shape, array.dtype)
    assert array.to_dask(chunks=(45, 32)).chunks == ((45,), (32, 32))
    assert array.to_dask(chunks=-1).npartitions == 1


def test_nothing_is_asked_before_it_computes(running, array) -> None:
    before = running.cluster.subscriber.origins.stats.bytes
    with caterva2.connect(running.url) as client, client.timings() as timings:
        lazy = client["foo/x.b2nd"].to_dask()
        ((lazy + 1)[::3].sum(axis=1), lazy[[0, 44]], da.from_array(array))
        assert not timings
        lazy[0, 0].compute()
        assert len(timings) == 1
    assert running.cluster.subscriber.origins.stats.bytes > before


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_it_computes_as_numpy_does(array, scheduler) -> None:
    with dask.config.set(scheduler=scheduler):
        for lazy in (array.to_dask(), array.to_dask(chunks=(7, 64)), da.from_array(array)):
            assert np.array_equal(lazy.compute(), FIELD)
            assert lazy.sum().compute() == FIELD.sum()
            assert np.array_equal(lazy[5:41:3, ::-1].compute(), FIELD[5:41:3, ::-1])
            assert np.array_equal(lazy[[0, 44, 3]][:, [1, 60]].compute(), FIELD[[0, 44, 3]][:, [1, 60]])
            assert np.array_equal(lazy[lazy > 900].compute(), FIELD[FIELD > 900])
            assert np.array_equal(lazy.vindex[[0, 44], [63, 0]].compute(), FIELD[[0, 44], [63, 0]])
            assert np.array_equal((lazy @ lazy.T).compute(), FIELD @ FIELD.T)


def test_arrays_without_elements_or_dimensions(running) -> None:
    for name, truth in (("scalar", np.array(2.5)), ("empty", np.zeros((0, 3), np.int8))):
        computed = np.asarray(caterva2.open(f"{running.url}/data/foo/{name}.b2nd").to_dask().compute())
        assert (computed.shape, computed.dtype) == (truth.shape, truth.dtype)
        assert np.array_equal(computed, truth)


def test_each_chunk_is_asked_for_once_and_moves_once(running) -> None:
    stats = running.cluster.subscriber.origins.stats
    with caterva2.connect(running.url) as client, client.timings() as timings:
        array = client["foo/x.b2nd"]
        with dask.config.set(scheduler="threads"):
            array.to_dask().mean().compute()
        assert len(timings) == 12
        assert array.cbytes <= stats.bytes < array.cbytes + 20_000
        before = stats.bytes
        array.to_dask().mean().compute()
        assert stats.bytes == before


def test_names_say_which_version_it_is(running, array, tmp_path) -> None:
    name = array.to_dask().name
    again = caterva2.open(array.url)
    assert again.to_dask().name == name == pickle.loads(pickle.dumps(array)).to_dask().name
    assert array.to_dask(chunks=(45, 64)).name != name
    assert da.from_array(array).name == da.from_array(again).name
    replace(tmp_path / "root", running, array.etag)
    assert again.refresh()
    assert again.to_dask().name != name
    assert da.from_array(again).name != da.from_array(array).name


def test_versions_are_not_mixed(running, array, tmp_path) -> None:
    old = array.to_dask()
    corner = old[:5, :5].compute()
    replace(tmp_path / "root", running, array.etag)
    array.refresh()  # which leaves the one that was made before where it is
    with pytest.raises(Changed) as error:
        old.sum().compute()
    assert error.value.current_etag == array.etag
    assert array.to_dask().sum().compute() == (FIELD + 1).sum()
    assert np.array_equal(array.to_dask()[:5, :5].compute(), corner + 1)


def test_directories_have_another_token_each_time(running) -> None:
    root = caterva2.open(f"{running.url}/data/foo")
    assert tokenize(root) != tokenize(root)


@pytest.fixture(scope="module")
def workers() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_processes_of_distributed_compute_it(running, array, workers) -> None:
    assert array.to_dask().sum().compute() == FIELD.sum()
    assert np.array_equal((array.to_dask() * 2).compute(), FIELD * 2)
    dataset = xr.open_dataset(array.url, engine="caterva2", chunks={})
    assert dataset.x.min().compute() == FIELD.min()
    stats = running.cluster.subscriber.origins.stats
    before = stats.bytes
    assert array.to_dask().max().compute() == FIELD.max()
    assert stats.bytes == before  # whichever process reads it
    assert workers.submit(lambda array: array[3, 4], array).result() == FIELD[3, 4]


def test_an_error_in_another_process_comes_back_as_it_is(running, array, workers, tmp_path) -> None:
    lazy = array.to_dask()
    replace(tmp_path / "root", running, array.etag)
    with pytest.raises(Changed) as error:
        lazy.sum().compute()
    assert (error.value.path, error.value.wanted_etag) == ("foo/x.b2nd", array.etag)
    array.refresh()
    assert error.value.current_etag == array.etag
