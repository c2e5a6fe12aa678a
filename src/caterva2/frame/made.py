"""Parts of arrays on their way between two hosts of ours: the elements in C order, as one Blosc2 chunk.

They are compressed once for one receiver, by the filter that suits the dataset and as hard as the way is
slow; never with the parameters that the dataset is stored with, which were chosen for storing once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt
from caterva2.frame.chunk import parse_chunk_header
from caterva2.frame.geometry import geometry_of
from caterva2.frame.library import decompress_into, library
from caterva2.model.manifest import Head

__all__ = ["LEVELS", "chunk_of_array", "read_chunk_into"]

LEVELS = range(4)
"""How hard: 0 is LZ4, the others are levels of Zstandard."""

BLOCK_BYTES = 512 * 1024
"""Blocks of such a chunk, in bytes: nobody reads parts of it, and larger ones are smaller in all."""

MAX_TYPESIZE = 255

Array = npt.NDArray[Any]  # of whatever dtype the dataset has


def chunk_of_array(head: Head, array: Array, level: int) -> bytes:
    """Return the elements of an array as a Blosc2 chunk. Blocking.

    Parameters
    ----------
    head : Head
        The version that they are of; its filters say how they are shuffled.
    array : ndarray
        Of any shape and memory layout, not empty, below 2 GiB.
    level : int
        One of `LEVELS`.
    """
    blosc2 = library()
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    header = geometry_of(head).header
    bits = header is not None and blosc2.Filter.BITSHUFFLE.value in header.filters
    itemsize = array.dtype.itemsize
    return bytes(
        blosc2.compress2(
            data,
            codec=blosc2.Codec.ZSTD if level else blosc2.Codec.LZ4,
            clevel=level or 1,
            filters=[blosc2.Filter.BITSHUFFLE if bits else blosc2.Filter.SHUFFLE],
            filters_meta=[0],
            typesize=itemsize if itemsize <= MAX_TYPESIZE else 1,
            blocksize=BLOCK_BYTES if len(data) > BLOCK_BYTES else 0,
            nthreads=1,
        )
    )


def read_chunk_into(chunk: bytes, out: Array) -> None:
    """Decode what `chunk_of_array` made. Blocking.

    Parameters
    ----------
    chunk : bytes
    out : ndarray
        Is written; of any memory layout.

    Raises
    ------
    Corrupt
        If it is no chunk, or one of another size.
    """
    header = parse_chunk_header(chunk)
    if (header.nbytes, header.cbytes) != (out.nbytes, len(chunk)):
        raise Corrupt(
            f"a chunk of {header.cbytes:,} bytes with {header.nbytes:,} where {len(chunk):,} bytes came for "
            f"{out.nbytes:,}"
        )
    direct = out.flags.c_contiguous
    elements = out if direct else np.empty(out.shape, out.dtype)
    try:
        decompress_into(chunk, elements.reshape(-1).view(np.uint8))
    except (RuntimeError, ValueError) as error:
        raise Corrupt(f"a chunk that cannot be decoded: {error}") from error
    if not direct:
        out[...] = elements
