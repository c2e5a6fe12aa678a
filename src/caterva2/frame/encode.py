"""Answers: arrays as Blosc2 frames and as .npy.

A frame of an answer never has the parameters of the stored one: those are chosen for storing once, an
answer is made for each reader. Zstandard at level 1 with bit shuffling is several times as fast as what
datasets are stored with, and compresses no worse.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Unsupported
from caterva2.frame.geometry import geometry_of
from caterva2.frame.library import library
from caterva2.model.manifest import Head
from caterva2.model.selection import Selection

__all__ = [
    "CframeFile",
    "StoredFile",
    "cframe_of_array",
    "cframe_of_items",
    "covered_chunks",
    "npy_header",
    "npy_parts",
]

SMALL_BYTES = 4 * 1024
"""Answers up to this size, in bytes, are not compressed: it would take longer than it saves."""

MAX_STORED_CHUNKS = 2048
"""Frames of more chunks are not put together of stored ones: each one more rewrites their index."""

LEAST_SAMPLE_BYTES = 4
"""Fewer bytes than this may be found elsewhere in a frame as well."""

CHUNK_BYTES = 4 * 1024 * 1024
"""Chunks of plain frames, in bytes."""

Array = npt.NDArray[Any]  # of whatever dtype the answer has


def _cparams(nbytes: int, typesize: int) -> Any:
    blosc2 = library()
    return blosc2.CParams(
        codec=blosc2.Codec.ZSTD,
        clevel=0 if nbytes <= SMALL_BYTES else 1,
        filters=[blosc2.Filter.BITSHUFFLE],
        filters_meta=[0],
        typesize=typesize,
        nthreads=1,
    )


def cframe_of_array(array: Array) -> bytes:
    """Return an array as a Blosc2 frame, for `blosc2.ndarray_from_cframe`. Blocking.

    Parameters
    ----------
    array : ndarray
        Of any shape, 0-d and empty included, and any dtype without Python objects.

    Raises
    ------
    Unsupported
        If its elements are Python objects.

    Notes
    -----
    blosc2 4.14.1 cannot read arrays whose elements have more than 255 bytes out of a frame ("Error while
    getting the buffer"), whoever made it. The frame is right; ``.npy`` is the way around for such dtypes.
    """
    if array.dtype.hasobject:
        raise Unsupported(f"arrays of dtype {array.dtype} cannot be encoded: they hold Python objects")
    contiguous = np.asarray(array, order="C")  # ascontiguousarray would make 0-d arrays 1-d
    if 0 < array.nbytes <= SMALL_BYTES and (around := _around(array.shape, array.dtype)):
        return contiguous.tobytes().join(around)
    return _compressed(contiguous)


def _compressed(array: Array) -> bytes:
    cparams = _cparams(array.nbytes, array.dtype.itemsize)
    return bytes(library().asarray(array, cparams=cparams).to_cframe())


@lru_cache(maxsize=1024)
def _around(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[bytes, bytes] | None:
    """Return what is before and behind the elements of a small array in its frame; None if they are cut up.

    They are not compressed, so that all such frames differ in them alone.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    sample = random.Random(nbytes).randbytes(nbytes)
    around = _compressed(np.frombuffer(sample, dtype).reshape(shape)).split(sample)
    return (around[0], around[1]) if len(around) == 2 and nbytes >= LEAST_SAMPLE_BYTES else None


class CframeFile:
    """An array as a Blosc2 frame that is made in a file, part by part. Blocking.

    Parameters
    ----------
    file : Path
        Is made.
    shape : tuple of int
        None of them 0.
    dtype : dtype
    chunks : tuple of int
        Elements of a chunk along each dimension. Parts that end where chunks end are compressed once.

    Raises
    ------
    OSError
        If it cannot be written; so do the methods.
    """

    def __init__(
        self, file: Path, shape: tuple[int, ...], dtype: np.dtype[Any], chunks: tuple[int, ...]
    ) -> None:
        with _as_os_errors():
            self._array = library().empty(
                shape,
                dtype=dtype,
                chunks=chunks,
                cparams=_cparams(math.prod(shape) * dtype.itemsize, dtype.itemsize),
                urlpath=str(file),
                mode="w",
                contiguous=True,
            )

    def write(self, where: tuple[slice, ...], part: Array) -> None:
        """Write a part of the array."""
        with _as_os_errors():
            self._array[where] = np.asarray(part, order="C")


class StoredFile:
    """A part of an array that is made of whole chunks, as a frame of just these, in a file. Blocking.

    Nothing is decoded or compressed.

    Parameters
    ----------
    file : Path
        Is made.
    head : Head
        Of an array whose `covered_chunks` are not None.
    shape : tuple of int
        Of the part; none of them 0.

    Raises
    ------
    OSError
        If it cannot be written; so does the method.
    """

    def __init__(self, file: Path, head: Head, shape: tuple[int, ...]) -> None:
        geometry, blosc2 = geometry_of(head), library()
        header = geometry.header
        assert header is not None
        cparams = blosc2.CParams(
            codec=blosc2.Codec(header.codec),
            filters=[blosc2.Filter(number) for number in header.filters],
            filters_meta=list(header.filters_meta),
            typesize=header.typesize,
            nthreads=1,
        )
        with _as_os_errors():
            self._array = blosc2.empty(
                shape,
                dtype=geometry.dtype,
                chunks=geometry.grid.chunks,
                blocks=geometry.grid.blocks,
                cparams=cparams,
                urlpath=str(file),
                mode="w",
                contiguous=True,
            )

    def write(self, number: int, chunk: bytes) -> None:
        """Write the chunk of a number, as it is stored."""
        with _as_os_errors():
            self._array.schunk.update_chunk(number, chunk)


def covered_chunks(head: Head, selection: Selection) -> list[int] | None:
    """Return the chunks that a selection of an array is made of, in order of the answer.

    Returns
    -------
    list of int or None
        None if it is not one of whole chunks (those at the upper edges, where the array ends), or if a chunk
        cannot be told from a frame of others: then it is decoded and compressed anew.
    """
    geometry = geometry_of(head)
    grid, header = geometry.grid, geometry.header
    if header is None or header.use_dict or geometry.delta or not geometry.by_block:
        return None
    if header.typesize != geometry.dtype.itemsize:
        return None
    if tuple(min(chunk, n) for chunk, n in zip(grid.chunks, selection.counts, strict=True)) != grid.chunks:
        return None  # a frame of so little would have other chunks
    numbers = [0]
    for axis, chunk, length, count in zip(
        selection.axes, grid.chunks, grid.shape, grid.chunk_counts, strict=True
    ):
        ends = axis.stop % chunk == 0 or axis.stop == length
        if axis.drop or axis.reverse or axis.step != 1 or axis.start % chunk or not ends:
            return None
        along = range(axis.start // chunk, -(-axis.stop // chunk))
        numbers = [number * count + one for number in numbers for one in along]
        if len(numbers) > MAX_STORED_CHUNKS:
            return None
    return numbers


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Blosc2 says that it could not write, but not why."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"Blosc2 could not write a frame ({error})") from error


def cframe_of_items(data: bytes, typesize: int) -> bytes:
    """Return items as a plain Blosc2 frame, for `blosc2.schunk_from_cframe`. Blocking.

    Parameters
    ----------
    data : bytes
        The items, one after the other.
    typesize : int
        Size of an item, in bytes.
    """
    blosc2 = library()
    chunksize = max(1, min(len(data), CHUNK_BYTES))
    chunksize = math.ceil(chunksize / typesize) * typesize
    cparams = _cparams(len(data), typesize if typesize <= 255 else 1)  # an item of more is cut to bytes
    return bytes(blosc2.SChunk(chunksize=chunksize, data=data or None, cparams=cparams).to_cframe())


def npy_parts(array: Array) -> tuple[bytes, memoryview]:
    """Return an array as a ``.npy`` file in two parts: header and data.

    Parameters
    ----------
    array : ndarray
        Of any dtype without Python objects.

    Returns
    -------
    header : bytes
    data : memoryview
        C order; of `array` itself where that is contiguous.

    Raises
    ------
    Unsupported
        If its elements are Python objects.
    """
    if array.dtype.hasobject:
        raise Unsupported(f"arrays of dtype {array.dtype} cannot be encoded: they hold Python objects")
    contiguous = np.asarray(array, order="C")
    header = npy_header(contiguous.shape, contiguous.dtype)
    if not contiguous.nbytes:
        return header, memoryview(b"")
    return header, contiguous.reshape(-1).view(np.uint8).data


@lru_cache(maxsize=1024)
def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return what comes before the data of a ``.npy`` file, in C order (format 1.0 of `numpy.lib.format`)."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()
