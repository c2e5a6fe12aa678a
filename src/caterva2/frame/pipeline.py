"""Codecs and filters: which ones a chunk is enough for, and how those are decoded that need its frame."""

from __future__ import annotations

import struct
from typing import Any

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import ChunkHeader
from caterva2.frame.geometry import Geometry
from caterva2.frame.library import library

__all__ = ["decode_in_frame", "is_plain"]

STANDARD_FORMATS = (0, 1, 3, 4)
"""Codecs that every Blosc2 has, by their number in a chunk's header."""


def is_plain(header: ChunkHeader) -> bool:
    """Return whether Blosc2 needs no more than a chunk, which is not a copy of the data, to decode it."""
    return header.codec_format in STANDARD_FORMATS and all(
        number <= 4 or number == 36 or (number == 35 and meta)
        for number, meta in zip(header.filters, header.filters_meta, strict=True)
    )


def decode_in_frame(geometry: Geometry, header: ChunkHeader, chunk: bytes | memoryview) -> memoryview:
    """Decode a chunk within a frame of its own, which has the metadata of the one it comes from. Blocking.

    Raises
    ------
    Unsupported
        If the codec or filter is not available here; the message names it.
    Corrupt
        If it is decoded to another size than its header says.
    """
    frame = _one_chunk_frame(geometry, header, bytes(chunk[: header.cbytes]))
    blosc2 = library()
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
    index = library().compress2(bytes(8), codec=library().Codec.LZ4, clevel=0, typesize=8, nthreads=1)
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
    blosc2 = library()

    def name(enum: Any, number: int) -> str:
        try:
            return str(enum(number).name)
        except ValueError:
            return f"number {number}"

    names = [f"filter {name(blosc2.Filter, n)}" for n in header.filters if n]
    if header.codec_format not in STANDARD_FORMATS:
        names.insert(0, f"codec {name(blosc2.Codec, header.user_codec)}")
    return ", ".join(names)
