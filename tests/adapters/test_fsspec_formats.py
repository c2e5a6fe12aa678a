"""HDF5, netCDF, Zarr, tables and images in a root, read by their libraries: what is touched is moved.

What is moved is counted at the subscriber: the bytes that it fetched from the publisher. A second reader
moves none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pandas
import pytest
import rasterio
import xarray
import zarr

from caterva2.adapters.fsspec import Caterva2FileSystem
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster

NOISE = np.random.default_rng(5).random((20, 300, 300), np.float32)  # 7.2 MB
KEY = (slice(11, 13), slice(120, 130), slice(250, 260))
CHUNKS = (5, 100, 100)
CHUNK_BYTES = 4 * 5 * 100 * 100
TABLE = pandas.DataFrame({name: np.random.default_rng(n).random(200_000) for n, name in enumerate("abcdef")})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("root")
    with h5py.File(directory / "x.h5", "w") as file:
        file.create_dataset("deep/t", data=NOISE, chunks=CHUNKS, compression="gzip", compression_opts=1)
    dataset = xarray.Dataset({"t": (("z", "y", "x"), NOISE)}, {"z": np.arange(20)}, {"title": "noise"})
    dataset.to_netcdf(directory / "x.nc", engine="h5netcdf", encoding={"t": {"chunksizes": CHUNKS}})
    dataset.to_zarr(directory / "set.zarr", consolidated=True, zarr_format=2)
    zarr.create_array(directory / "v3.zarr", data=NOISE, chunks=CHUNKS)
    zarr.create_array(directory / "shards.zarr", data=NOISE, chunks=CHUNKS, shards=(20, 300, 300))
    group = zarr.open_group(directory / "v2.zarr", mode="w", zarr_format=2)
    group.create_array("t", data=NOISE, chunks=CHUNKS)
    TABLE.to_csv(directory / "table.csv", index=False)
    TABLE.to_parquet(directory / "table.parquet", row_group_size=50_000)
    with rasterio.open(
        directory / "x.tif",
        "w",
        driver="GTiff",
        width=300,
        height=300,
        count=20,
        dtype="float32",
        tiled=True,
        blockxsize=64,
        blockysize=64,
        transform=rasterio.Affine(0.1, 0, 5, 0, -0.1, 50),
    ) as image:
        image.write(NOISE)
    return directory


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": root})) as running:
        yield running


@pytest.fixture
def url(running) -> str:
    return f"{running.url.replace('http', 'caterva2')}/foo"


@pytest.fixture
def moved(running) -> Callable[..., tuple[Any, int]]:
    """Return what two readers read, one after the other, and what was moved for the first."""
    stats = running.cluster.subscriber.origins.stats

    def reads(read: Callable[[], Any]) -> tuple[Any, int]:
        before = stats.bytes
        found, first = read(), stats.bytes - before
        Caterva2FileSystem.clear_instance_cache()
        again = read()
        assert stats.bytes - before == first
        assert np.array_equal(found, again)
        return found, first

    return reads


def test_hdf5(url, moved) -> None:
    def read():
        with fsspec.open(f"{url}/x.h5") as opened, h5py.File(opened) as file:
            return file["deep/t"][KEY]

    found, first = moved(read)
    assert np.array_equal(found, NOISE[KEY])
    assert first < 2 * CHUNK_BYTES + 4 * PAGE  # two chunks, and pages of metadata


def test_a_whole_hdf5_dataset(url, moved, root) -> None:
    def read():
        with fsspec.open(f"{url}/x.h5") as opened, h5py.File(opened) as file:
            return file["deep/t"][...]

    found, first = moved(read)
    assert np.array_equal(found, NOISE)
    assert first < (root / "x.h5").stat().st_size * 1.01


def test_netcdf(url, moved) -> None:
    def read():
        with (
            fsspec.open(f"{url}/x.nc") as opened,
            xarray.open_dataset(opened, engine="h5netcdf") as dataset,
        ):
            assert dataset.attrs["title"] == "noise"
            return dataset.t[KEY].values

    found, first = moved(read)
    assert np.array_equal(found, NOISE[KEY])
    assert first < 2 * CHUNK_BYTES + 4 * PAGE


@pytest.mark.parametrize("name", ["v3.zarr", "v2.zarr"])
def test_zarr(url, moved, name) -> None:
    def read():
        array = zarr.open(f"{url}/{name}", mode="r")
        return (array["t"] if name == "v2.zarr" else array)[KEY]

    found, first = moved(read)
    assert np.array_equal(found, NOISE[KEY])
    assert first < 2 * CHUNK_BYTES


def test_shards_of_zarr(url, moved) -> None:
    found, first = moved(lambda: zarr.open_array(f"{url}/shards.zarr", mode="r")[KEY])
    assert np.array_equal(found, NOISE[KEY])
    assert first < 2 * CHUNK_BYTES + 4 * PAGE  # and its index


def test_zarr_by_xarray(url) -> None:
    with xarray.open_zarr(f"{url}/set.zarr", chunks=None) as dataset:
        assert np.array_equal(dataset.t[KEY], NOISE[KEY])


def test_csv(url, moved) -> None:
    found, first = moved(lambda: pandas.read_csv(f"{url}/table.csv", nrows=100))
    assert np.allclose(found, TABLE[:100])
    assert first < 3_000_000  # what pandas reads at once, and not all
    whole, _ = moved(lambda: pandas.read_csv(f"{url}/table.csv"))
    assert np.allclose(whole, TABLE)


def test_parquet(url, moved, root) -> None:
    found, first = moved(lambda: pandas.read_parquet(f"{url}/table.parquet", columns=["c"]))
    assert np.array_equal(found["c"], TABLE["c"])
    assert first < (root / "table.parquet").stat().st_size / 2


def test_images(url, moved, root) -> None:
    def read():
        fs, path = fsspec.url_to_fs(f"{url}/x.tif")  # of an open file rasterio reads all
        with rasterio.open(path, opener=fs) as image:
            return image.read(12, window=((120, 130), (250, 260)))

    found, first = moved(read)
    assert np.array_equal(found, NOISE[11][KEY[1:]])
    assert first < (root / "x.tif").stat().st_size / 2


def test_text(url) -> None:
    with fsspec.open(f"{url}/table.csv", "rt") as file:
        assert file.readline() == "a,b,c,d,e,f\n"
        assert isinstance(file, io.TextIOWrapper)
