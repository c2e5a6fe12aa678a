"""One function for each client: it opens the 200 MB array and reads a small slice of it.

Run by the interpreter of that client, a process for each read: ``python readers.py NAME URL SCRATCH``
prints the version of the library, the seconds and the sum of what was read, as JSON. Libraries are imported
before the clock starts. This file needs nothing but numpy beside them, so that any environment can run it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

KEY = (slice(103, 113), slice(230, 240), slice(240, 250))
"""The slice: 10 x 10 x 10 elements."""

PATH = "foo/a.b2nd"


@dataclass(frozen=True)
class Reader:
    """A client, and how it reads.

    Attributes
    ----------
    title : str
    modules : tuple of str
        What is imported before, and has to be installed; the version of the first one is shown.
    read : callable
        Takes the URL of a subscriber and a directory for files; returns the slice.
    released : bool
        Whether it is run by the environment of the released client.
    """

    title: str
    modules: tuple[str, ...]
    read: Callable[[str, Path], np.ndarray]
    released: bool = False


READERS: dict[str, Reader] = {}


def reader(title: str, *modules: str, released: bool = False):
    """Register a function as a reader by its name."""

    def register(read):
        READERS[read.__name__] = Reader(title, modules, read, released)
        return read

    return register


def ours(url: str, path: str) -> str:
    """Return an URL of our scheme."""
    return f"caterva2://{urlsplit(url).netloc}/{path}"


@reader("our client", "caterva2", "caterva2.client", "blosc2")
def python(url, scratch):
    import caterva2

    return caterva2.connect(url)[PATH][KEY]


@reader("our client, asynchronous", "caterva2", "caterva2.client.asynchronous", "blosc2")
def asynchronous(url, scratch):
    import caterva2

    async def read():
        async with caterva2.AsyncClient(url) as client:
            return await (await client.open(PATH))[KEY]

    return asyncio.run(read())


@reader("`blosc2.C2Array`", "blosc2", "httpx")
def c2array(url, scratch):
    import blosc2

    return blosc2.C2Array(PATH, urlbase=url)[KEY]


@reader("`blosc2.open(URLPath, lazy=True)`", "blosc2", "httpx")
def urlpath(url, scratch):
    import blosc2

    return blosc2.open(blosc2.URLPath(PATH, urlbase=url), lazy=True)[KEY]


@reader("`blosc2.Proxy`", "blosc2", "httpx")
def proxy(url, scratch):
    import blosc2

    source = blosc2.C2Array(PATH, urlbase=url)
    return blosc2.Proxy(source, urlpath=str(scratch / "proxy.b2nd"), mode="w")[KEY]


@reader("lazy expression over `C2Array`", "blosc2", "httpx")
def lazyexpr(url, scratch):
    import blosc2

    array = blosc2.C2Array(PATH, urlbase=url)
    return blosc2.lazyexpr("a + 2 * a", {"a": array}).compute(item=KEY)[:] / 3


@reader("`blosc2.open(URL, lazy=True)`", "blosc2", "fsspec", "aiohttp")
def url_ranges(url, scratch):
    import blosc2

    return blosc2.open(f"{url}/data/{PATH}", lazy=True)[KEY]


@reader("`caterva2` of PyPI", "caterva2", "blosc2", "httpx", released=True)
def released(url, scratch):
    import caterva2

    return caterva2.Client(url, timeout=60).get(PATH)[KEY]


@reader("xarray", "xarray", "caterva2.adapters.xarray", "blosc2")
def xarray(url, scratch):
    import xarray as xr

    with xr.open_dataset(ours(url, PATH), engine="caterva2") as dataset:
        (variable,) = dataset.data_vars.values()
        return variable[KEY].values


@reader("dask", "dask", "dask.array", "caterva2.client.dask", "blosc2")
def dask(url, scratch):
    import caterva2

    return caterva2.connect(url)[PATH].to_dask()[KEY].compute()


@reader("zarr, our store", "zarr", "caterva2.adapters.zarr", "blosc2")
def zarr_store(url, scratch):
    import zarr

    from caterva2.adapters.zarr import Caterva2Store

    return zarr.open_array(Caterva2Store(ours(url, PATH)), mode="r")[KEY]


@reader("zarr directory, fsspec", "zarr", "fsspec", "caterva2.adapters.fsspec")
def zarr_directory(url, scratch):
    import zarr

    return zarr.open_array(ours(url, "foo/a.zarr"), mode="r")[KEY]


@reader("h5py, fsspec", "h5py", "fsspec", "caterva2.adapters.fsspec")
def h5py(url, scratch):
    import fsspec
    import h5py as h5

    with fsspec.open(ours(url, "foo/a.h5")) as file, h5.File(file) as opened:
        return opened["a"][KEY]


@reader("h5netcdf and xarray, fsspec", "h5netcdf", "xarray", "fsspec", "caterva2.adapters.fsspec")
def h5netcdf(url, scratch):
    import fsspec
    import xarray as xr

    with (
        fsspec.open(ours(url, "foo/a.h5")) as file,
        xr.open_dataset(file, engine="h5netcdf", phony_dims="sort") as dataset,
    ):
        return dataset["a"][KEY].values


@reader("napari's reader", "npe2", "caterva2.adapters.napari", "dask.array", "blosc2")
def napari(url, scratch):
    from caterva2.adapters.napari import get_reader

    path = f"{url}/data/{PATH}"
    ((data, *_),) = get_reader(path)(path)
    return np.asarray(data[KEY])


@reader("curl, a slice as `.npy`")
def curl(url, scratch):
    text = ",".join(f"{part.start}:{part.stop}" for part in KEY)
    file = scratch / "part.npy"
    command = ["curl", "-sgf", "-H", "Accept: application/x-npy", "-o", file]
    subprocess.run([*command, f"{url}/api/fetch/{PATH}?slice_={text}"], check=True)
    return np.load(file)


def main(name: str, url: str, scratch: str) -> None:
    chosen = READERS[name]
    for module in chosen.modules:
        importlib.import_module(module)
    began = time.perf_counter()
    values = chosen.read(url, Path(scratch))
    seconds = time.perf_counter() - began
    version = importlib.metadata.version(chosen.modules[0]) if chosen.modules else ""
    print(json.dumps({"version": version, "seconds": seconds, "sum": float(np.sum(values, dtype="f8"))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
