"""Sample data: real climate fields, and an array large enough for partial caching to show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Unsupported
from caterva2.frame.write import write_array, write_frame, write_slabs, write_tiles

__all__ = ["write_climate", "write_example", "write_large", "write_many", "write_small"]

_FIELDS = {
    # file of iris-sample-data: variable, chunks, blocks
    "A1B_north_america.nc": ("air_temperature", (60, 37, 49), (12, 37, 49)),
    "ostia_monthly.nc": ("surface_temperature", (18, 18, 432), (6, 18, 108)),
}


def write_climate(directory: Path) -> list[Path]:
    """Write the Met Office fields of ``iris-sample-data`` as ``.b2nd``, with attributes and dimension names.

    Returns
    -------
    list of Path
        ``air_temperature.b2nd`` (240 months, 37 x 49 points, K) and ``surface_temperature.b2nd`` (54 months,
        18 x 432 points, K), both float32.

    Raises
    ------
    Unsupported
        If the packages of the extra ``demo`` are not installed.
    """
    try:
        import iris_sample_data
        import netCDF4
    except ImportError as error:
        raise Unsupported("they need: pip install iris-sample-data netCDF4") from error
    source = Path(iris_sample_data.path)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (variable, chunks, blocks) in _FIELDS.items():
        with netCDF4.Dataset(source / name) as dataset:
            field = dataset[variable]
            values = np.ma.filled(field[:], np.nan).astype(np.float32)
            attrs = {key: _plain(field.getncattr(key)) for key in field.ncattrs()}
            attrs["_ARRAY_DIMENSIONS"] = list(field.dimensions)
        file = directory / f"{variable}.b2nd"
        written.append(write_array(file, values, chunks=chunks, blocks=blocks, attrs=attrs))
    return written


def _plain(value: Any) -> Any:  # Any: whatever netCDF holds as an attribute
    return value.item() if isinstance(value, np.generic) else value


LARGE_SHAPE = (512, 512, 512)


def write_large(file: Path, shape: tuple[int, int, int] = LARGE_SHAPE) -> Path:
    """Write a smooth float32 field with noise: 512 MiB in memory, over 200 MB compressed, by default.

    Chunks are (64, 128, 128), blocks (16, 32, 32): 64 KiB of memory each.
    """
    return write_slabs(file, shape, np.float32, _waves(shape), chunks=(64, 128, 128), blocks=(16, 32, 32))


def _waves(shape: tuple[int, int, int]) -> Iterator[npt.NDArray[np.float32]]:
    random = np.random.default_rng(2026)
    y = np.linspace(0, 3, shape[1], dtype=np.float32)[:, None]
    x = np.linspace(0, 5, shape[2], dtype=np.float32)
    for start in range(0, shape[0], 64):
        depth = min(64, shape[0] - start)
        noise = random.standard_normal((depth, *shape[1:]), dtype=np.float32)
        yield np.float32(280) + np.float32(20) * np.sin(y + start / 90) * np.cos(x) + noise / 2


TILES = 512


def write_many(
    file: Path, counts: tuple[int, int], *, tile: tuple[int, int] = (16, 32), seed: int = 2026
) -> Path:
    """Write a float32 array of many small chunks, of 512 kinds in no order: 1 GB for a million by default.

    As the sizes of the chunks follow no rule, the index hardly compresses.

    Parameters
    ----------
    file : Path
    counts : (int, int)
        Chunks along each dimension.
    tile : (int, int)
        Elements of a chunk along each dimension.
    seed : int
        Files of the same seed and counts are the same.
    """
    random = np.random.default_rng(seed)
    tiles = random.standard_normal((TILES, *tile), dtype=np.float32)
    for values in tiles.reshape(TILES, -1):  # what is zero takes no room
        values[random.integers(1, len(values)) :] = 0
    return write_tiles(file, tiles, random.integers(0, TILES, counts))


def write_small(directory: Path, count: int, *, per_directory: int = 1000) -> Path:
    """Write many small arrays: uint8, 8 x 8, each another, as ``000/000000.b2nd`` and so on.

    They are copies of one file in which the first row is the number of the array: 100,000 take some seconds.
    """
    values = np.random.default_rng(2026).integers(0, 256, (8, 8), np.uint8)
    directory.mkdir(parents=True, exist_ok=True)
    template = write_array(directory / "template.b2nd", values)
    data = bytearray(template.read_bytes())
    template.unlink()
    at = data.index(values.tobytes())  # noise is stored as it is
    for number in range(count):
        below = directory / f"{number // per_directory:03}"
        if not number % per_directory:
            below.mkdir()
        data[at : at + 8] = number.to_bytes(8, "little")
        (below / f"{number:06}.b2nd").write_bytes(data)
    return directory


def write_example(directory: Path) -> Path:
    """Write a small root: arrays of one to four dimensions, a frame and a text, in three directories."""
    for name in ("dir1", "dir2"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    write_array(directory / "ds-1d.b2nd", np.arange(1000), chunks=[100], blocks=[10])
    write_frame(directory / "ds-hello.b2frame", b"Hello world!" * 100)
    (directory / "README.md").write_text(
        "# An example root\n\nArrays, a frame and this text.\n", encoding="utf-8"
    )
    two = np.arange(200, dtype=np.uint16).reshape(10, 20)
    write_array(directory / "dir1" / "ds-2d.b2nd", two, chunks=(5, 5), blocks=(2, 2))
    three = np.linspace(0, 1, 3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    write_array(directory / "dir1" / "ds-3d.b2nd", three)
    four = np.arange(2 * 3 * 4 * 5, dtype=np.complex128).reshape(2, 3, 4, 5)
    write_array(directory / "dir2" / "ds-4d.b2nd", four)
    return directory
