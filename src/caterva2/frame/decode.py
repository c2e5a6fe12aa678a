"""From extents to elements: what a cell needs of a chunk, and its decoding.

Blocks are decoded as compact chunks, with the GIL released. Codecs and filters that need the metadata of the
frame (ZFP, NDLZ, cells and means) get the whole chunk in a frame of its own, in memory. The file is never
opened through Blosc2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import (
    CHUNK_HEADER_BYTES,
    ChunkHeader,
    Special,
    block_starts,
    compact_chunk,
    parse_chunk_header,
    special_chunk,
)
from caterva2.frame.geometry import Geometry, dtype_of, geometry_of, grid_of, typesize_of
from caterva2.frame.scatter import scatter, scatter_blocks
from caterva2.model.extents import ChunkKind, Extent
from caterva2.model.grid import Cell
from caterva2.model.manifest import Head
from caterva2.model.page import Page

__all__ = [
    "block_extents",
    "cell_extents",
    "decode_blocks",
    "decode_cell",
    "decode_stored",
    "decode_whole",
    "decompress_into",
    "dtype_of",
    "get_ready",
    "grid_of",
    "is_plain",
    "is_ready",
    "place_blocks",
    "place_cell",
    "stored_special",
    "typesize_of",
]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has
Scratch = npt.NDArray[np.uint8]

_SPECIAL = {ChunkKind.ZEROS: Special.ZEROS, ChunkKind.NANS: Special.NANS, ChunkKind.UNINIT: Special.UNINIT}
_NANS = {4: np.float32("nan").tobytes(), 8: np.float64("nan").tobytes()}
_STANDARD_FORMATS = (0, 1, 3, 4)


@cache
def _blosc2() -> Any:  # Any: the module ships no types
    import blosc2

    blosc2.set_releasegil(True)
    return blosc2


def is_ready() -> bool:
    """Return whether decoding can begin at once; else it imports Blosc2 first, which takes a second."""
    return bool(_blosc2.cache_info().currsize)


def get_ready() -> None:
    """Import Blosc2, so that nobody who reads has to wait for it. Blocking, for about a second."""
    _blosc2()


# -- what to fetch ---------------------------------------------------------------------------------


def cell_extents(head: Head, page: Page, cell: Cell) -> list[Extent]:
    """Return the extents that decoding a cell needs, in the order in which `decode_cell` wants their bytes.

    Parameters
    ----------
    head : Head
    page : Page
        The one that describes the cell's chunk.
    cell : Cell
        Of `grid_of`.

    Returns
    -------
    list of Extent
        Empty for chunks that have no bytes.

    Raises
    ------
    Corrupt, Unsupported
        If the head is not one of a frame that can be decoded.
    """
    return block_extents(head, page, cell.nchunk, cell.blocks)


def block_extents(head: Head, page: Page, nchunk: int, blocks: Sequence[int]) -> list[Extent]:
    """Do as `cell_extents`, for some blocks of a chunk, ascending."""
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


def decode_cell(head: Head, page: Page, cell: Cell, parts: Sequence[bytes], out: Array) -> None:
    """Decode what a cell needs of a chunk and write it where it belongs. Blocking.

    Parameters
    ----------
    head : Head
    page : Page
        The one that describes the cell's chunk.
    cell : Cell
        Of `grid_of`.
    parts : sequence of bytes
        Of the extents that `cell_extents` gave, in that order.
    out : ndarray of dtype `dtype_of`
        The result before dimensions are dropped or reversed; ``out[cell.target]`` is written.

    Raises
    ------
    Corrupt
        If the bytes are malformed or contradict the head.
    Unsupported
        If a codec or filter is not available here; the message names it.
    """
    place_cell(head, cell, decode_stored(head, page, cell.nchunk, cell.blocks, parts), out)


def place_blocks(head: Head, cell: Cell, found: Sequence[Scratch], out: Array) -> None:
    """Write blocks of a cell, each as its bytes, where they belong, as `decode_cell` does."""
    geometry = geometry_of(head)
    scatter_blocks(found, geometry.dtype, geometry.grid.blocks, cell, out)


def place_cell(head: Head, cell: Cell, found: memoryview | bytes, out: Array) -> None:
    """Write what `decode_stored` gave for the blocks of a cell where it belongs, as `decode_cell` does."""
    geometry = geometry_of(head)
    if isinstance(found, bytes):
        out[cell.target] = _element(found, geometry.dtype)
    else:
        scatter(found, geometry.dtype, geometry.grid.blocks, cell, out)


def decode_blocks(
    head: Head, page: Page, nchunk: int, blocks: Sequence[int], parts: Sequence[bytes]
) -> Array:
    """Decode some blocks of a chunk. Blocking.

    Parameters
    ----------
    head, page
        As for `decode_cell`.
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
    Corrupt, Unsupported
        As for `decode_cell`.
    """
    geometry = geometry_of(head)
    shape = (len(blocks), *geometry.grid.blocks)
    found = decode_stored(head, page, nchunk, blocks, parts)
    if isinstance(found, bytes):
        return np.broadcast_to(_element(found, geometry.dtype), shape)
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
        As for `decode_cell`.
    """
    geometry = geometry_of(head)
    kind = page.kind(nchunk)
    if kind > ChunkKind.BLOCKS:
        return _run(_run_value(_SPECIAL[kind], geometry), geometry, nchunk, blocks)
    if geometry.header is None:
        return memoryview(parts[0])
    data = parts[0]
    header = parse_chunk_header(data)
    if header.nbytes != geometry.chunk_nbytes(nchunk) or header.cbytes != int(
        page.sizes[nchunk - page.first]
    ):
        raise Corrupt(f"chunk {nchunk} of {head.path} is not of the size that its manifest says")
    if header.special:
        return _run(_stored_value(header, data, geometry), geometry, nchunk, blocks)
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
        return _pick(geometry, header, blocks, _decode_in_frame(geometry, header, chunk))
    if geometry.by_block:
        needed = _needed(geometry, blocks)
    else:
        needed, payloads = blocks, [payloads[n] for n in blocks]
    raw = _decompress(compact_chunk(header, preamble, needed, payloads), scratch)
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
        return _pick(geometry, header, blocks, _decode_in_frame(geometry, header, data))
    starts = block_starts(header, data) if header.has_blocks else None
    if len(blocks) == header.nblocks or starts is None or header.blocksize != geometry.blocksize:
        return _pick(geometry, header, blocks, _decompress(data, scratch))
    delta = 3 in header.filters and not header.memcpyed and blocks[0] != 0
    needed = (0, *blocks) if delta else blocks
    view, order = memoryview(data), np.sort(starts)
    stops = np.append(order[1:], header.cbytes)[np.searchsorted(order, starts[list(needed)])]
    payloads = [view[starts[n] : stop] for n, stop in zip(needed, stops.tolist(), strict=True)]
    if header.memcpyed:
        payloads = [view[starts[n] : starts[n] + header.block_nbytes(n)] for n in needed]
    raw = _decompress(compact_chunk(header, view[: int(order[0])], needed, payloads), scratch)
    return raw[header.blocksize :] if delta else raw


def is_plain(header: ChunkHeader) -> bool:
    """Return whether Blosc2 needs no more than a chunk, which is not a copy of the data, to decode it."""
    return header.codec_format in _STANDARD_FORMATS and all(
        number <= 4 or number == 36 or (number == 35 and meta)
        for number, meta in zip(header.filters, header.filters_meta, strict=True)
    )


def _pick(geometry: Geometry, header: ChunkHeader, blocks: Sequence[int], raw: memoryview) -> memoryview:
    """Return the blocks wanted of a whole decoded chunk."""
    size = geometry.blocksize
    if len(blocks) == -(-header.nbytes // size):
        return raw
    if blocks[-1] - blocks[0] == len(blocks) - 1:
        return raw[blocks[0] * size : (blocks[-1] + 1) * size]
    return memoryview(b"".join([raw[n * size : (n + 1) * size] for n in blocks]))


def _decompress(chunk: bytes | memoryview, scratch: Scratch | None = None) -> memoryview:
    # The header is one that was checked: decompress2 takes its word for the size of the result
    nbytes = int.from_bytes(chunk[4:8], "little")
    if scratch is None or len(scratch) < nbytes:
        return memoryview(_blosc2().decompress2(chunk, nthreads=1))
    target = scratch[:nbytes]
    decompress_into(chunk, target)
    return target.data


def decompress_into(chunk: bytes | memoryview, target: Array) -> None:
    """Decompress a chunk, whose header was checked, into memory of just that size.

    Raises
    ------
    ValueError, RuntimeError
        If it cannot be decompressed.
    """
    _blosc2().decompress2(chunk, dst=target, nthreads=1)


# -- runs of one value -----------------------------------------------------------------------------


def _element(value: bytes, dtype: np.dtype[Any]) -> Any:  # Any: a scalar of any dtype
    return np.frombuffer(value, dtype=dtype)[0]


def _run_value(special: Special, geometry: Geometry) -> bytes:
    """Return the bytes that a run repeats."""
    if special != Special.NANS:
        return b"\0"
    typesize = geometry.header.typesize if geometry.header else 0
    if typesize not in _NANS:
        raise Corrupt(f"a chunk of NaN for items of {typesize} bytes")
    return _NANS[typesize]


def _stored_value(header: ChunkHeader, data: bytes, geometry: Geometry) -> bytes:
    """Return the bytes that a run repeats that is stored as a chunk."""
    if header.special != Special.VALUE:
        return _run_value(header.special, geometry)
    value = bytes(data[CHUNK_HEADER_BYTES : header.cbytes])
    if not value or header.nbytes % len(value):
        raise Corrupt(f"a chunk of {header.nbytes:,} bytes that repeats {len(value)} bytes")
    return value


def _run(value: bytes, geometry: Geometry, nchunk: int, blocks: Sequence[int]) -> memoryview | bytes:
    """Return the element that is repeated or, where the value is of several elements, the blocks."""
    itemsize, blocksize = geometry.dtype.itemsize, geometry.blocksize
    if itemsize % len(value) == 0:
        return value * (itemsize // len(value))
    nbytes = geometry.chunk_nbytes(nchunk)
    pieces = []
    for block in blocks:
        phase = block * blocksize % len(value)
        size = min(blocksize, nbytes - block * blocksize)
        pieces.append((value * (size // len(value) + 2))[phase : phase + size])
    return memoryview(b"".join(pieces))


def stored_special(head: Head, page: Page, nchunk: int) -> bytes:
    """Return a chunk for one that has no bytes: its header alone.

    Parameters
    ----------
    head, page
        As for `decode_cell`.
    nchunk : int
        Of a chunk of ``ChunkKind.ZEROS``, ``NANS`` or ``UNINIT``.
    """
    geometry = geometry_of(head)
    typesize = geometry.header.typesize if geometry.header else 1
    return special_chunk(
        _SPECIAL[page.kind(nchunk)], typesize, geometry.chunk_nbytes(nchunk), geometry.blocksize
    )


# -- codecs and filters that need the frame --------------------------------------------------------


def _decode_in_frame(geometry: Geometry, header: ChunkHeader, chunk: bytes | memoryview) -> memoryview:
    """Decode a chunk within a frame of its own, which has the metadata of the one it comes from."""
    frame = _one_chunk_frame(geometry, header, bytes(chunk[: header.cbytes]))
    blosc2 = _blosc2()
    try:
        raw = blosc2.schunk_from_cframe(frame, copy=True).decompress_chunk(0)
    except (RuntimeError, ValueError) as error:
        raise Unsupported(f"{_pipeline_name(header)}: not available here, or failed ({error})") from error
    if len(raw) != header.nbytes:
        raise Corrupt(f"a chunk of {header.nbytes:,} bytes was decoded to {len(raw):,}")
    return memoryview(raw)


def _one_chunk_frame(geometry: Geometry, header: ChunkHeader, chunk: bytes) -> bytes:
    frame = geometry.header
    if frame is None:
        raise Corrupt("a chunk without a frame")
    raw = bytearray(frame.raw)
    index = _blosc2().compress2(bytes(8), codec=_blosc2().Codec.LZ4, clevel=0, typesize=8, nthreads=1)
    trailer = bytearray(b"\x94\x01\x93\xcd\x00\x06\xde\x00\x00\xdc\x00\x00\xce\0\0\0\0\xd8\x00" + bytes(16))
    struct.pack_into(">I", trailer, 13, len(trailer))
    struct.pack_into(">Q", raw, 16, len(raw) + len(chunk) + len(index) + len(trailer))
    struct.pack_into(">q", raw, 30, header.nbytes)
    struct.pack_into(">q", raw, 39, len(chunk))
    struct.pack_into(">i", raw, 58, header.nbytes)
    struct.pack_into(">hB", raw, 63, 1, 0xD1)
    struct.pack_into(">h", raw, 66, 1)
    raw[68] = 0xC2  # no metalayers in the trailer
    return b"".join([raw, chunk, index, trailer])


def _pipeline_name(header: ChunkHeader) -> str:
    blosc2 = _blosc2()

    def name(enum: Any, number: int) -> str:
        try:
            return str(enum(number).name)
        except ValueError:
            return f"number {number}"

    names = [f"filter {name(blosc2.Filter, n)}" for n in header.filters if n]
    if header.codec_format not in _STANDARD_FORMATS:
        names.insert(0, f"codec {name(blosc2.Codec, header.user_codec)}")
    return ", ".join(names)
