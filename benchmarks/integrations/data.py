"""The array of 200 MB, as Blosc2, HDF5 and Zarr, written once: a smooth float32 field with noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caterva2.frame.write import write_array

__all__ = ["write"]

SHAPE = (200, 500, 500)
CHUNKS = (20, 100, 100)
BLOCKS = (5, 50, 50)


def write(directory: Path, key: Sequence[slice]) -> tuple[Path, float]:
    """Write what is missing; return the directory, and the sum of a slice."""
    values = _field()
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "a.b2nd").exists():
        write_array(directory / "a.b2nd", values, chunks=CHUNKS, blocks=BLOCKS, attrs={"units": "K"})
    if not (directory / "a.h5").exists():
        import h5py

        with h5py.File(directory / "a.h5", "w", libver="latest") as file:
            file.create_dataset("a", data=values, chunks=CHUNKS, compression="gzip", compression_opts=1)
    if not (directory / "a.zarr").exists():
        import zarr

        array = zarr.create_array(directory / "a.zarr", shape=SHAPE, chunks=CHUNKS, dtype="f4")
        array[:] = values
    return directory, float(values[tuple(key)].sum(dtype="f8"))


def _field() -> np.ndarray:
    z, y, x = np.ogrid[0:2:200j, 0:3:500j, 0:5:500j]
    noise = np.random.default_rng(2026).standard_normal(SHAPE, np.float32)
    return (280 + 20 * np.sin(y + z) * np.cos(x)).astype(np.float32) + noise / 2
