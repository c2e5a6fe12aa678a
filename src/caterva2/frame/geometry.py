"""What decoding needs to know of a version, worked out once from its head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import ChunkHeader
from caterva2.frame.layout import FrameHeader, parse_header
from caterva2.frame.metadata import other_object, parse_b2nd
from caterva2.model.extents import FILE_EXTENT_BYTES
from caterva2.model.grid import ChunkGrid
from caterva2.model.manifest import Head

__all__ = [
    "Geometry",
    "array_geometry",
    "dtype_of",
    "frame_geometry",
    "geometry_of",
    "grid_of",
    "typesize_of",
]

_DELTA, _BYTEDELTA = 3, 35
_PLAIN_FILTERS = frozenset((0, 1, 2, _DELTA, 4, _BYTEDELTA, 36))  # shuffles, truncations
_FORMATS = {0: 0, 1: 1, 2: 1, 4: 3, 5: 4}  # codec: format of its streams (lz4hc writes lz4)
_BYTES = np.dtype("u1")


@dataclass(frozen=True)
class Geometry:
    """How the elements of a version lie in its chunks.

    Attributes
    ----------
    header : FrameHeader or None
        None for files that are no frames.
    grid : ChunkGrid
        Of elements; of bytes for plain frames and files.
    dtype : numpy.dtype
        Of the elements of `grid`.
    blocksize : int
        Of every chunk that has blocks in the manifest, in bytes.
    by_block : bool
        Whether codec and filters decode blocks on their own; otherwise they need the whole chunk and the
        metadata of the frame.
    delta : bool
        Whether each block is stored as the difference to block 0.
    """

    header: FrameHeader | None
    grid: ChunkGrid
    dtype: np.dtype[Any]
    blocksize: int
    by_block: bool
    delta: bool

    def chunk_nbytes(self, nchunk: int) -> int:
        """Return the decompressed size of a chunk, in bytes."""
        if self.header is not None:
            return self.header.chunk_nbytes(nchunk)
        return min(self.grid.chunks[0], self.grid.shape[0] - nchunk * self.grid.chunks[0])

    def same_pipeline(self, chunk: ChunkHeader) -> bool:
        """Whether a chunk was made with the codec and the filters that the frame names."""
        header = self.header
        if header is None or not chunk.extended:
            return False
        if chunk.memcpyed:
            return True
        wanted = _FORMATS.get(header.codec)
        same = chunk.codec_format == wanted if wanted is not None else chunk.user_codec == header.codec
        return same and (chunk.filters, chunk.filters_meta) == (header.filters, header.filters_meta)


@lru_cache(maxsize=256)
def plain_pipeline(codec: int, filters: bytes, filters_meta: bytes) -> bool:
    """Return whether blocks can be decoded without the frame, given `blosc2.Codec` and `blosc2.Filter`."""
    return codec in _FORMATS and all(
        number in _PLAIN_FILTERS and (number != _BYTEDELTA or meta > 0)
        for number, meta in zip(filters, filters_meta, strict=True)
    )


def array_geometry(header: FrameHeader) -> Geometry:
    """Return the geometry of an array.

    Raises
    ------
    Corrupt
        If the frame's header and its b2nd metalayer contradict each other.
    Unsupported
        If it is something else than an array of equal chunks.
    """
    _check_regular(header)
    if "b2nd" not in header.metalayers:
        raise Unsupported("a plain Blosc2 frame, not an array: it has no b2nd metalayer")
    array = parse_b2nd(header.metalayers["b2nd"])
    grid, itemsize = array.grid, array.dtype.itemsize
    blocksize = itemsize
    for block in grid.blocks:
        blocksize *= block
    if grid.nchunks and header.chunksize != blocksize * grid.nblocks:
        raise Corrupt(
            f"chunks of {header.chunksize:,} bytes cannot hold {grid.nblocks} blocks of {blocksize:,}"
        )
    if grid.nchunks != header.nchunks or header.nbytes != grid.nchunks * header.chunksize:
        raise Corrupt(f"an array of {grid.nchunks:,} chunks in a frame of {header.nchunks:,}")
    return _geometry(header, grid, array.dtype, blocksize)


def frame_geometry(header: FrameHeader, blocksize: int) -> Geometry:
    """Return the geometry of a plain frame, in bytes.

    Parameters
    ----------
    header : FrameHeader
    blocksize : int
        Of its chunks, as the first ordinary one says, in bytes.

    Raises
    ------
    Corrupt
        If that is impossible.
    Unsupported
        If its chunks are not equal, or it holds an object of its own kind.
    """
    _check_regular(header)
    chunksize = max(1, header.chunksize)
    if not 0 < blocksize <= chunksize:
        raise Corrupt(f"blocks of {blocksize:,} bytes in chunks of {chunksize:,}")
    return _geometry(header, ChunkGrid((header.nbytes,), (chunksize,), (blocksize,)), _BYTES, blocksize)


def _check_regular(header: FrameHeader) -> None:
    if what := other_object(header.metalayers):
        raise Unsupported(f"the frame holds {what}: it can be downloaded, not sliced")
    if header.variable:
        raise Unsupported(f"a frame with {header.variable}: it can be downloaded, not sliced")


def _geometry(header: FrameHeader, grid: ChunkGrid, dtype: np.dtype[Any], blocksize: int) -> Geometry:
    by_block = plain_pipeline(header.codec, header.filters, header.filters_meta)
    return Geometry(header, grid, dtype, blocksize, by_block, by_block and _DELTA in header.filters)


def geometry_of(head: Head) -> Geometry:
    """Return the geometry of a version.

    Raises
    ------
    Corrupt, Unsupported
        If the head is not one that `inspect` made.
    """
    known: Geometry | None = head.__dict__.get("_geometry")
    if known is None:
        known = _compute(head)
        head.__dict__["_geometry"] = known  # as cached_property does it: a head never changes
    return known


def _compute(head: Head) -> Geometry:
    if head.kind == "array":
        geometry = _array_geometry(head.header)
    elif head.kind == "frame":
        blocksize = head.meta.get("blocksize")
        if not isinstance(blocksize, int):
            raise Corrupt(f"the head of {head.path} does not say how large blocks are")
        geometry = frame_geometry(parse_header(head.header), blocksize)
    else:
        grid = ChunkGrid((head.size,), (FILE_EXTENT_BYTES,), (FILE_EXTENT_BYTES,))
        return Geometry(None, grid, _BYTES, FILE_EXTENT_BYTES, by_block=False, delta=False)
    if (geometry.grid.nchunks, geometry.grid.nblocks + 2) != (head.nchunks, head.slots_per_chunk):
        raise Corrupt(f"the head of {head.path} contradicts the frame's header")
    return geometry


@lru_cache(maxsize=256)
def _array_geometry(header: bytes) -> Geometry:
    return array_geometry(parse_header(header))


def grid_of(head: Head) -> ChunkGrid:
    """Return the grid of a version: of elements for arrays, of bytes for frames and files.

    Raises
    ------
    Corrupt, Unsupported
        As `geometry_of`.
    """
    return geometry_of(head).grid


def dtype_of(head: Head) -> np.dtype[Any]:
    """Return the dtype of the elements of `grid_of`.

    Raises
    ------
    Corrupt, Unsupported
        As `geometry_of`.
    """
    return geometry_of(head).dtype


def typesize_of(head: Head) -> int:
    """Return the size of an item, in bytes: an element of an array, an item of a frame, 1 for files.

    Raises
    ------
    Corrupt, Unsupported
        As `geometry_of`.
    """
    geometry = geometry_of(head)
    if head.kind == "frame" and geometry.header is not None:
        return geometry.header.typesize
    return geometry.dtype.itemsize
