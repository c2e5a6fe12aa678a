"""Chunks as they are sent to who decodes them: as stored, or made of the blocks that are wanted.

A *record* is what a cell of a selection needs, as one Blosc2 chunk: exactly its blocks, or the whole chunk
that has them. Nothing is decoded to make one, and its size is known from the pages of the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import (
    CHUNK_HEADER_BYTES,
    ChunkHeader,
    Special,
    block_starts,
    compact_parts,
    compact_whole,
    parse_chunk_header,
)
from caterva2.frame.decode import block_extents, decode_whole
from caterva2.frame.geometry import Geometry, geometry_of
from caterva2.frame.library import decompress_into
from caterva2.frame.pipeline import is_plain
from caterva2.frame.runs import NANS, stored_special
from caterva2.frame.scatter import scatter
from caterva2.model.extents import ChunkKind, Extent
from caterva2.model.grid import Cell, ChunkGrid
from caterva2.model.manifest import Head
from caterva2.model.page import Page

__all__ = ["can_be_sent", "compact_record", "decode_record", "record", "record_extents", "record_size"]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has

_DELTA = 3


# -- making them -----------------------------------------------------------------------------------


def can_be_sent(head: Head) -> bool:
    """Return whether blocks of an array can be decoded by who knows no more than they say themselves.

    Raises
    ------
    Corrupt, Unsupported
        As `geometry_of`.
    """
    geometry = geometry_of(head)
    return head.kind == "array" and geometry.by_block and not geometry.delta


def record_extents(head: Head, page: Page, cell: Cell) -> list[Extent]:
    """Return the extents that a record is made of, in the order in which `record` wants their bytes.

    Parameters
    ----------
    head : Head
        Of an array that `can_be_sent`.
    page : Page
        The one that describes the cell's chunk.
    cell : Cell

    Returns
    -------
    list of Extent
        Empty for chunks that have no bytes.
    """
    if not _is_verbatim(head, page, cell):
        return block_extents(head, page, cell.nchunk, cell.blocks)
    slack = page.chunk_slack(cell.nchunk)
    return [extent for extent in page.chunk_extents(cell.nchunk) if extent != slack]


def _is_verbatim(head: Head, page: Page, cell: Cell) -> bool:
    kind = page.kind(cell.nchunk)
    whole = len(cell.blocks) == geometry_of(head).grid.nblocks
    return kind == ChunkKind.WHOLE or (kind == ChunkKind.BLOCKS and whole)


def record_size(head: Head, page: Page, cell: Cell, extents: Sequence[Extent] | None = None) -> int:
    """Return the size of a record, in bytes; parameters as for `record_extents`, and what that gave."""
    if page.kind(cell.nchunk) > ChunkKind.BLOCKS:
        return CHUNK_HEADER_BYTES
    if _is_verbatim(head, page, cell):
        return int(page.sizes[cell.nchunk - page.first])
    if extents is None:
        extents = block_extents(head, page, cell.nchunk, cell.blocks)
    nbytes = sum(extent.size for extent in extents)
    if extents[0].size == CHUNK_HEADER_BYTES:  # stored as it is, without block starts
        return nbytes
    left_out = geometry_of(head).grid.nblocks - (len(extents) - 1)
    return nbytes - 4 * left_out


def record(head: Head, page: Page, cell: Cell, parts: Sequence[bytes]) -> Sequence[bytes | memoryview]:
    """Return a record in pieces.

    Parameters
    ----------
    head, page, cell
        As for `record_extents`.
    parts : sequence of bytes
        Of the extents that it gave, in that order.

    Raises
    ------
    Corrupt
        If the bytes are malformed.
    """
    if not parts:
        return [_special(head, page, cell)]
    if _is_verbatim(head, page, cell):
        return parts
    header = parse_chunk_header(parts[0])
    if not header.has_blocks:
        raise Corrupt(f"chunk {cell.nchunk} of {head.path} is not made as its manifest says")
    return compact_parts(header, parts[0], cell.blocks, parts[1:])


def _special(head: Head, page: Page, cell: Cell) -> bytes:
    """Return the header of a run that is as long as the blocks of a cell."""
    whole = bytearray(stored_special(head, page, cell.nchunk))
    whole[4:8] = (len(cell.blocks) * geometry_of(head).blocksize).to_bytes(4, "little")
    return bytes(whole)


def compact_record(data: bytes | memoryview, blocks: Sequence[int], blocksize: int) -> bytes | memoryview:
    """Return a chunk with some of its blocks alone, where that can be done; otherwise as it is.

    Parameters
    ----------
    data : bytes
        A whole chunk.
    blocks : sequence of int
        Numbers of the blocks, ascending.
    blocksize : int
        In bytes.
    """
    header = parse_chunk_header(data)
    if not header.has_blocks or header.blocksize != blocksize or len(blocks) == header.nblocks:
        return data
    starts = block_starts(header, data)
    if starts is None or _DELTA in header.filters:
        return data
    return compact_whole(header, data, starts, blocks)


# -- decoding them ---------------------------------------------------------------------------------


def decode_record(data: memoryview, grid: ChunkGrid, cell: Cell, out: Array, scratch: Array) -> None:
    """Decode a record and write it where it belongs. Blocking; the GIL is released.

    Parameters
    ----------
    data : memoryview
        The record.
    grid : ChunkGrid
    cell : Cell
        Of `grid`; what the record must be of.
    out : ndarray of the array's dtype, which has no Python objects
        ``out[cell.target]`` is written.
    scratch : ndarray of uint8
        Memory for what is decoded, if it is large enough: that of the operating system is dear.

    Raises
    ------
    Corrupt
        If it is malformed, or not of those blocks.
    Unsupported
        If it takes more than the record to decode it.
    """
    header, dtype = parse_chunk_header(data), out.dtype
    blocksize = math.prod(grid.blocks) * dtype.itemsize
    wanted, whole = len(cell.blocks) * blocksize, grid.nblocks * blocksize
    if header.cbytes != len(data) or header.nbytes not in (wanted, whole):
        raise Corrupt(f"a record of {len(data):,} bytes is not one of {wanted:,} bytes of data")
    if header.special:
        out[cell.target] = _repeated(header, data, dtype)
        return
    if (header.extended and not header.has_blocks) or not (header.memcpyed or is_plain(header)):
        raise Unsupported("a chunk of a kind, or with a codec or filter, that needs its frame")
    try:
        if header.nbytes == whole and wanted != whole:
            geometry = Geometry(None, grid, dtype, blocksize, by_block=True, delta=False)
            raw = decode_whole(geometry, header, cell.blocks, data)
        else:
            direct = _in_place(grid, cell, out)
            place = direct if direct is not None else scratch[:wanted]
            if len(place) < wanted:
                place = np.empty(wanted, np.uint8)
            decompress_into(data, place)
            if direct is not None:
                return
            raw = place.data
    except (ValueError, RuntimeError) as error:
        if isinstance(error, Corrupt | Unsupported):
            raise
        raise Corrupt(f"a record of chunk {cell.nchunk} cannot be decompressed: {error}") from error
    scatter(raw, dtype, grid.blocks, cell, out)


def _repeated(header: ChunkHeader, data: memoryview, dtype: np.dtype[Any]) -> Any:  # Any: a scalar
    """Return the element that a run repeats."""
    value: bytes | None = b"\0"
    if header.special == Special.NANS:
        value = NANS.get(header.typesize)
    elif header.special == Special.VALUE:
        value = bytes(data[CHUNK_HEADER_BYTES:])
    if not value or dtype.itemsize % len(value):
        raise Unsupported("a run that repeats something else than elements")
    return np.frombuffer(value * (dtype.itemsize // len(value)), dtype)[0]


def _in_place(grid: ChunkGrid, cell: Cell, out: Array) -> Array | None:
    """Return where in the result the blocks are, one behind the other, if they are that."""
    part = out[cell.target]
    stacked = (cell.region[0], grid.blocks[0] * len(cell.box[0])) if grid.blocks else None
    if stacked is None or stacked[0] != slice(0, stacked[1], 1):
        return None
    if part.shape[1:] != grid.blocks[1:] or any(len(box) != 1 for box in cell.box[1:]):
        return None
    return part.reshape(-1).view(np.uint8) if part.flags.c_contiguous and part.size else None
