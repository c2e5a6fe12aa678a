"""Writing arrays and frames as files: for examples, demonstrations and tests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from caterva2.frame.layout import header_size, parse_header, resized_header, trailer_size

__all__ = ["write_array", "write_frame", "write_slabs", "write_tiles"]

_CPARAMS: dict[str, Any] = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE]}


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
    data = np.asarray(array, order="C")  # as Blosc2 takes it
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
    target = blosc2.empty(
        tuple(shape),
        dtype=np.dtype(dtype),
        urlpath=str(temporary),
        mode="w",
        cparams=_CPARAMS,
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


def write_tiles(file: Path, tiles: npt.NDArray[Any], choice: npt.NDArray[np.integer[Any]]) -> Path:
    """Write an array of many chunks as ``.b2nd``, each one of a few that are compressed once.

    A frame is put together of its parts, which takes seconds for a million chunks; Blosc2 takes minutes.

    Parameters
    ----------
    file : Path
        Replaced at once.
    tiles : ndarray, shape (ntiles, *chunks)
        What chunks can be.
    choice : ndarray of int, shape (nchunks of dimension 0, …)
        Which tile each chunk is.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    chunks = tiles.shape[1:]
    packed = blosc2.asarray(tiles, chunks=(1, *chunks), blocks=(1, *chunks), cparams=_CPARAMS)
    stored = [packed.schunk.get_chunk(number) for number in range(len(tiles))]
    # The header and the trailer of an array of this shape that has no data yet
    shape = tuple(count * length for count, length in zip(choice.shape, chunks, strict=True))
    blosc2.uninit(
        shape,
        dtype=tiles.dtype,
        urlpath=str(temporary),
        mode="w",
        cparams=_CPARAMS,
        chunks=chunks,
        blocks=chunks,
    )
    frame = temporary.read_bytes()
    header = parse_header(frame[: header_size(frame)])
    trailer = frame[-trailer_size(frame, header) :]
    stops = np.cumsum(np.array([len(chunk) for chunk in stored], np.int64)[choice.reshape(-1)])
    offsets = np.concatenate([np.zeros(1, np.int64), stops[:-1]])
    index = blosc2.compress2(offsets.astype("<i8"), typesize=8, codec=blosc2.Codec.BLOSCLZ)
    with temporary.open("wb") as out:
        out.write(resized_header(header, int(stops[-1]), len(index) + len(trailer)))
        for run in choice.reshape(len(choice), -1):
            out.write(b"".join(stored[number] for number in run.tolist()))
        out.write(index)
        out.write(trailer)
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
