"""From extents to elements: what a cell needs of a chunk, and its decoding.

Blocks are decoded as compact chunks, with the GIL released. Codecs and filters that need the metadata of the
frame (ZFP, NDLZ, cells and means) get the whole chunk in a frame of its own, in memory. The file is never
opened through Blosc2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import (
    ChunkHeader,
    block_starts,
    compact_chunk,
    compact_whole,
    parse_chunk_header,
)
from caterva2.frame.geometry import Geometry, geometry_of
from caterva2.frame.library import decompress
from caterva2.frame.pipeline import decode_in_frame, is_plain
from caterva2.frame.runs import SPECIAL, element, run, run_value, stored_value
from caterva2.frame.scatter import scatter, scatter_blocks
from caterva2.model.extents import ChunkKind, Extent
from caterva2.model.grid import Cell
from caterva2.model.manifest import Head
from caterva2.model.page import Page

__all__ = ["block_extents", "decode_blocks", "decode_stored", "decode_whole", "place_blocks", "place_cell"]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has
Scratch = npt.NDArray[np.uint8]


# -- what to fetch ---------------------------------------------------------------------------------


def block_extents(head: Head, page: Page, nchunk: int, blocks: Sequence[int]) -> list[Extent]:
    """Return the extents that decoding some blocks of a chunk needs, in the order of `decode_blocks`.

    Parameters
    ----------
    head : Head
    page : Page
        The one that describes the chunk.
    nchunk : int
    blocks : sequence of int
        Numbers of the blocks, ascending.

    Returns
    -------
    list of Extent
        Empty for chunks that have no bytes.

    Raises
    ------
    Corrupt, Unsupported
        If the head is not one of a frame that can be decoded.
    """
    kind = page.kind(nchunk)
    if kind > ChunkKind.BLOCKS:
        return []
    extents = [page.chunk_head(nchunk)]
    if kind == ChunkKind.BLOCKS:
        extents += page.chunk_blocks(nchunk, _needed(geometry_of(head), blocks))
    return extents


def _needed(geometry: Geometry, blocks: Sequence[int]) -> Sequence[int]:
    if not geometry.by_block:
        return range(geometry.grid.nblocks)
    if geometry.delta and blocks[0] != 0:
        return (0, *blocks)
    return blocks


# -- decoding --------------------------------------------------------------------------------------


def place_blocks(head: Head, cell: Cell, found: Sequence[Scratch], out: Array) -> None:
    """Write blocks of a cell, each as its bytes, where they belong in a result, as `place_cell` does."""
    geometry = geometry_of(head)
    scatter_blocks(found, geometry.dtype, geometry.grid.blocks, cell, out)


def place_cell(head: Head, cell: Cell, found: memoryview | bytes, out: Array) -> None:
    """Write what `decode_stored` gave for the blocks of a cell where it belongs.

    Parameters
    ----------
    head : Head
    cell : Cell
        Of `grid_of`.
    found : memoryview or bytes
    out : ndarray of dtype `dtype_of`
        The result before dimensions are dropped or reversed; ``out[cell.target]`` is written.
    """
    geometry = geometry_of(head)
    if isinstance(found, bytes):
        out[cell.target] = element(found, geometry.dtype)
    else:
        scatter(found, geometry.dtype, geometry.grid.blocks, cell, out)


def decode_blocks(
    head: Head, page: Page, nchunk: int, blocks: Sequence[int], parts: Sequence[bytes]
) -> Array:
    """Decode some blocks of a chunk. Blocking.

    Parameters
    ----------
    head : Head
    page : Page
        The one that describes the chunk.
    nchunk : int
    blocks : sequence of int
        Numbers of the blocks, ascending.
    parts : sequence of bytes
        Of the extents that `block_extents` gave, in that order.

    Returns
    -------
    ndarray of dtype `dtype_of`, shape (len(blocks), *blockshape)
        Read-only, possibly. The last block of the last chunk of a plain frame is padded with zeros.

    Raises
    ------
    Corrupt
        If the bytes are malformed or contradict the head.
    Unsupported
        If a codec or filter is not available here; the message names it.
    """
    geometry = geometry_of(head)
    shape = (len(blocks), *geometry.grid.blocks)
    found = decode_stored(head, page, nchunk, blocks, parts)
    if isinstance(found, bytes):
        return np.broadcast_to(element(found, geometry.dtype), shape)
    nbytes = len(blocks) * geometry.blocksize
    if len(found) < nbytes:
        found = bytes(found).ljust(nbytes, b"\0")
    return np.frombuffer(found, dtype=geometry.dtype).reshape(shape)


def decode_stored(
    head: Head,
    page: Page,
    nchunk: int,
    blocks: Sequence[int],
    parts: Sequence[bytes],
    *,
    scratch: Scratch | None = None,
) -> memoryview | bytes:
    """Decode some blocks of a chunk, as for `decode_blocks`. Blocking.

    Parameters
    ----------
    head, page, nchunk, blocks, parts
        As for `decode_blocks`.
    scratch : ndarray of uint8, optional
        Memory for what is decoded, used if it is large enough: that of the system is cleared page by page
        first, which takes half as long as decoding.

    Returns
    -------
    memoryview or bytes
        The blocks one after the other as a memoryview, or the one value of all their elements as bytes.

    Raises
    ------
    Corrupt, Unsupported
        As for `decode_blocks`.
    """
    geometry = geometry_of(head)
    kind = page.kind(nchunk)
    if kind > ChunkKind.BLOCKS:
        return run(run_value(SPECIAL[kind], geometry), geometry, nchunk, blocks)
    if geometry.header is None:
        return memoryview(parts[0])
    data = parts[0]
    header = parse_chunk_header(data)
    if header.nbytes != geometry.chunk_nbytes(nchunk) or header.cbytes != int(
        page.sizes[nchunk - page.first]
    ):
        raise Corrupt(f"chunk {nchunk} of {head.path} is not of the size that its manifest says")
    if header.special:
        return run(stored_value(header, data, geometry), geometry, nchunk, blocks)
    try:
        if kind == ChunkKind.BLOCKS:
            return _decode_parts(geometry, header, blocks, parts, scratch)
        return decode_whole(geometry, header, blocks, data, scratch)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, Corrupt | Unsupported):
            raise
        raise Corrupt(f"chunk {nchunk} of {head.path} cannot be decompressed: {error}") from error


def _decode_parts(
    geometry: Geometry,
    header: ChunkHeader,
    blocks: Sequence[int],
    parts: Sequence[bytes],
    scratch: Scratch | None,
) -> memoryview:
    """Decode blocks that are extents of their own."""
    if not header.has_blocks or header.blocksize != geometry.blocksize or not geometry.same_pipeline(header):
        raise Corrupt("a chunk is not made as the frame says")
    preamble, payloads = parts[0], parts[1:]
    if not geometry.by_block and not header.memcpyed:
        starts = block_starts(header, preamble)
        if starts is None:
            raise Corrupt("a chunk has impossible block starts")
        chunk = b"".join([preamble, *(payloads[n] for n in np.argsort(starts))])
        return _pick(geometry, header, blocks, decode_in_frame(geometry, header, chunk))
    if geometry.by_block:
        needed = _needed(geometry, blocks)
    else:
        needed, payloads = blocks, [payloads[n] for n in blocks]
    raw = decompress(compact_chunk(header, preamble, needed, payloads), scratch)
    return raw[header.blocksize :] if len(needed) > len(blocks) else raw


def decode_whole(
    geometry: Geometry,
    header: ChunkHeader,
    blocks: Sequence[int],
    data: bytes | memoryview,
    scratch: Scratch | None = None,
) -> memoryview:
    """Decode blocks of a chunk of which all is here. Blocking.

    Parameters
    ----------
    geometry : Geometry
    header : ChunkHeader
        Of the chunk.
    blocks : sequence of int
        Numbers of the blocks, ascending.
    data : bytes
        The chunk.
    scratch : ndarray of uint8, optional
        As for `decode_stored`.

    Raises
    ------
    Corrupt, Unsupported, ValueError, RuntimeError
        If it cannot be decoded.
    """
    if len(data) < header.cbytes:
        raise Corrupt(f"a chunk of {header.cbytes:,} bytes is cut to {len(data):,}")
    if not header.memcpyed and not is_plain(header):
        return _pick(geometry, header, blocks, decode_in_frame(geometry, header, data))
    starts = block_starts(header, data) if header.has_blocks else None
    if len(blocks) == header.nblocks or starts is None or header.blocksize != geometry.blocksize:
        return _pick(geometry, header, blocks, decompress(data, scratch))
    delta = 3 in header.filters and not header.memcpyed and blocks[0] != 0
    needed = (0, *blocks) if delta else blocks
    raw = decompress(compact_whole(header, data, starts, needed), scratch)
    return raw[header.blocksize :] if delta else raw


def _pick(geometry: Geometry, header: ChunkHeader, blocks: Sequence[int], raw: memoryview) -> memoryview:
    """Return the blocks wanted of a whole decoded chunk."""
    size = geometry.blocksize
    if len(blocks) == -(-header.nbytes // size):
        return raw
    if blocks[-1] - blocks[0] == len(blocks) - 1:
        return raw[blocks[0] * size : (blocks[-1] + 1) * size]
    return memoryview(b"".join([raw[n * size : (n + 1) * size] for n in blocks]))
