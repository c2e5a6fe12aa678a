"""Writing arrays and frames as files: for examples, demonstrations and tests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

__all__ = ["write_array", "write_frame", "write_slabs"]


def write_array(
    file: Path,
    array: npt.ArrayLike,
    *,
    chunks: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    attrs: dict[str, Any] | None = None,
) -> Path:
    """Write an array as ``.b2nd``, replacing the file at once (readers see the old one or the new one).

    Parameters
    ----------
    file : Path
    array : array_like
        Any shape and any dtype that Blosc2 stores.
    chunks, blocks : sequence of int, optional
        Elements along each dimension; chosen by Blosc2 by default.
    attrs : dict, optional
        Variable-length metadata.
    """
    data = np.asarray(array)
    return write_slabs(file, data.shape, data.dtype, [data], chunks=chunks, blocks=blocks, attrs=attrs)


def write_slabs(
    file: Path,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    slabs: Iterable[npt.NDArray[Any]],
    *,
    chunks: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    attrs: dict[str, Any] | None = None,
) -> Path:
    """Write an array as ``.b2nd`` slab by slab along its first dimension, replacing the file at once.

    Parameters
    ----------
    file : Path
    shape : sequence of int
    dtype : dtype_like
    slabs : iterable of ndarray
        Together they have the shape of the array; best each a multiple of the chunks' length.
    chunks, blocks, attrs
        As for `write_array`.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    cparams = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE]}
    target = blosc2.empty(
        tuple(shape),
        dtype=np.dtype(dtype),
        urlpath=str(temporary),
        mode="w",
        cparams=cparams,
        chunks=chunks,
        blocks=blocks,
    )
    if not shape:
        target[()] = next(iter(slabs))
    start = 0
    for slab in slabs if shape else ():
        if slab.size:
            target[start : start + len(slab)] = slab
        start += len(slab)
    for name, value in (attrs or {}).items():
        target.schunk.vlmeta[name] = value
    del target
    temporary.replace(file)
    return file


def write_frame(file: Path, items: bytes, *, typesize: int = 1, chunksize: int = 1 << 16) -> Path:
    """Write bytes as a plain super-chunk, ``.b2frame``, replacing the file at once.

    Parameters
    ----------
    file : Path
    items : bytes
        A multiple of `typesize` long.
    typesize : int
        Bytes of an item.
    chunksize : int
        Bytes of a chunk, decompressed.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    blosc2.SChunk(
        chunksize=chunksize,
        data=items,
        cparams={"typesize": typesize},
        urlpath=str(temporary),
        mode="w",
        contiguous=True,
    )
    temporary.replace(file)
    return file
