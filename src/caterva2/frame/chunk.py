"""The chunk of C-Blosc2: header | block starts | dictionary | blocks, and chunks made of some of its blocks.

Format: README_CHUNK_FORMAT.rst of C-Blosc2 3.3. A *compact chunk* holds only some blocks of a chunk, numbered
anew; C-Blosc2 decodes it like any other, at the cost of those blocks alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt

__all__ = [
    "CHUNK_HEADER_BYTES",
    "ChunkHeader",
    "Special",
    "block_starts",
    "compact_chunk",
    "compact_parts",
    "parse_chunk_header",
    "special_chunk",
]

CHUNK_HEADER_BYTES = 32
"""The extended header, in bytes; chunks of Blosc 1 have the first half of it."""

_FIELDS = struct.Struct("<BBBBiii6sBB6sBB")
_EXTENDED = 0x05  # both shuffle bits of `flags` at once
_MEMCPYED = 0x02
_NOT_SPLIT = 0x10


class Special(IntEnum):
    """Runs of a value that a chunk may be."""

    NONE = 0
    ZEROS = 1
    NANS = 2
    VALUE = 3
    UNINIT = 4


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The header of a chunk.

    Attributes
    ----------
    raw : bytes
        As stored, `CHUNK_HEADER_BYTES`.
    flags : int
    typesize, nbytes, blocksize, cbytes : int
        In bytes; `cbytes` includes the header.
    filters, filters_meta : bytes
        Six of each; empty for chunks of Blosc 1.
    user_codec, codec_meta : int
        `user_codec` counts where `codec_format` is 6.
    flags2, blosc2_flags : int
    """

    raw: bytes
    flags: int
    typesize: int
    nbytes: int
    blocksize: int
    cbytes: int
    filters: bytes
    user_codec: int
    codec_meta: int
    filters_meta: bytes
    flags2: int
    blosc2_flags: int

    @property
    def extended(self) -> bool:
        """Whether it is a chunk of Blosc 2."""
        return self.flags & _EXTENDED == _EXTENDED

    @property
    def memcpyed(self) -> bool:
        """Whether the data are stored as they are; there are no block starts then."""
        return bool(self.flags & _MEMCPYED)

    @property
    def codec_format(self) -> int:
        """Format of the streams: 0 blosclz, 1 lz4, 3 zlib, 4 zstd, 6 `user_codec`."""
        return self.flags >> 5

    @property
    def special(self) -> Special:
        """The run that the chunk is; `Special.NONE` for ordinary ones."""
        return Special((self.blosc2_flags >> 4) & 7) if self.extended else Special.NONE

    @property
    def nblocks(self) -> int:
        """Number of blocks."""
        return -(-self.nbytes // self.blocksize)

    @property
    def has_blocks(self) -> bool:
        """Whether it can be taken apart into blocks: one of Blosc 2 with equal blocks, and no run."""
        return self.extended and not (self.flags2 or self.blosc2_flags & 0xFE)

    def block_nbytes(self, block: int) -> int:
        """Return the decompressed size of a block, in bytes: only the last may be shorter than the rest."""
        return min(self.blocksize, self.nbytes - block * self.blocksize)


def parse_chunk_header(data: bytes | memoryview) -> ChunkHeader:
    """Parse the begin of a chunk.

    Raises
    ------
    Corrupt
        If it is too short or has impossible sizes.
    """
    return _parse(bytes(data[:CHUNK_HEADER_BYTES]))


@lru_cache(maxsize=4096)
def _parse(raw: bytes) -> ChunkHeader:
    if len(raw) < 16:
        raise Corrupt(f"a chunk cannot have {len(raw)} bytes")
    fields = _FIELDS.unpack(raw.ljust(CHUNK_HEADER_BYTES, b"\0"))
    _, _, flags, typesize, nbytes, blocksize, cbytes, filters, codec, meta, filters_meta, flags2, more = (
        fields
    )
    extended = flags & _EXTENDED == _EXTENDED
    if typesize == 0 or nbytes < 0 or blocksize <= 0 or cbytes < (CHUNK_HEADER_BYTES if extended else 16):
        raise Corrupt("a chunk with an impossible header")
    if extended and 0 < nbytes < blocksize and not flags2:
        raise Corrupt(f"a chunk of {nbytes:,} bytes in blocks of {blocksize:,}")
    if not extended:
        filters = filters_meta = b""
        codec = meta = flags2 = more = 0
    elif (
        (more >> 4) & 7 > Special.UNINIT or more & 0x08 or ((more >> 4) & 7 == Special.VALUE and cbytes <= 32)
    ):
        raise Corrupt("a chunk with impossible flags")
    return ChunkHeader(
        raw, flags, typesize, nbytes, blocksize, cbytes, filters, codec, meta, filters_meta, flags2, more
    )


def block_starts(header: ChunkHeader, begin: bytes | memoryview) -> npt.NDArray[np.int32] | None:
    """Return where the blocks of a chunk begin.

    Parameters
    ----------
    header : ChunkHeader
        Of a chunk that `has_blocks`.
    begin : bytes
        The chunk, at least its header and block starts.

    Returns
    -------
    ndarray of int32, shape (nblocks,), or None
        In bytes from the begin of the chunk, not necessarily ascending; all different. None where they make
        no sense as the limits of blocks: the chunk can then be decoded as a whole only, if at all.
    """
    count = header.nblocks
    if header.memcpyed:
        if header.cbytes != header.nbytes + CHUNK_HEADER_BYTES:
            return None
        return np.arange(count, dtype=np.int32) * np.int32(header.blocksize) + np.int32(CHUNK_HEADER_BYTES)
    first = CHUNK_HEADER_BYTES + 4 * count
    if len(begin) < first:
        return None
    starts = np.frombuffer(begin, dtype="<i4", count=count, offset=CHUNK_HEADER_BYTES)
    if count and (starts.min() < first or starts.max() >= header.cbytes):
        return None
    if count > 1 and not np.all(np.diff(np.sort(starts)) > 0):
        return None
    return starts


def compact_chunk(
    header: ChunkHeader,
    preamble: bytes | memoryview,
    blocks: Sequence[int],
    payloads: Sequence[bytes | memoryview],
) -> bytes:
    """Return a chunk that holds only some blocks of another; as `compact_parts`, joined."""
    return b"".join(compact_parts(header, preamble, blocks, payloads))


def compact_parts(
    header: ChunkHeader,
    preamble: bytes | memoryview,
    blocks: Sequence[int],
    payloads: Sequence[bytes | memoryview],
) -> list[bytes | memoryview]:
    """Return a chunk that holds only some blocks of another, in parts.

    Parameters
    ----------
    header : ChunkHeader
        Of a chunk that `has_blocks`.
    preamble : bytes
        The chunk up to its first block: header, block starts, dictionary.
    blocks : sequence of int
        Numbers of the blocks, ascending.
    payloads : sequence of bytes
        Each block as stored.

    Notes
    -----
    C-Blosc2 never splits a last block that is short; alone in a compact chunk it would not be seen as one, so
    it is marked as not split. Of a block no more is read than the streams that are there, so dead bytes
    behind a payload do no harm.
    """
    nbytes = sum(map(header.block_nbytes, blocks))
    raw = bytearray(header.raw)
    begin = b""
    size = CHUNK_HEADER_BYTES
    if not header.memcpyed:
        dictionary = preamble[CHUNK_HEADER_BYTES + 4 * header.nblocks :]
        size += 4 * len(blocks) + len(dictionary)
        starts = []
        for payload in payloads:
            starts.append(size)
            size += len(payload)
        begin = struct.pack(f"<{len(starts)}i", *starts) + dictionary
    else:
        size += nbytes
    if nbytes < header.blocksize:
        struct.pack_into("<i", raw, 8, nbytes)
        raw[2] |= _NOT_SPLIT
    struct.pack_into("<i", raw, 4, nbytes)
    struct.pack_into("<i", raw, 12, size)
    return [bytes(raw) + begin, *payloads]


def compact_whole(
    header: ChunkHeader, data: bytes | memoryview, starts: npt.NDArray[np.int32], blocks: Sequence[int]
) -> bytes:
    """Return a chunk that holds only some blocks of another, of which all is here.

    Parameters
    ----------
    header : ChunkHeader
        Of a chunk that `has_blocks`.
    data : bytes
        The chunk.
    starts : ndarray of int32, shape (nblocks,)
        As of `block_starts`.
    blocks : sequence of int
        Numbers of the blocks, ascending.
    """
    view, order = memoryview(data), np.sort(starts)
    wanted = starts[list(blocks)]
    stops = np.append(order[1:], header.cbytes)[np.searchsorted(order, wanted)]
    payloads = [view[start:stop] for start, stop in zip(wanted.tolist(), stops.tolist(), strict=True)]
    return compact_chunk(header, view[: int(order[0])], blocks, payloads)


def special_chunk(special: Special, typesize: int, nbytes: int, blocksize: int) -> bytes:
    """Return the chunk of a run: a header alone.

    Parameters
    ----------
    special : Special
        Not ``VALUE``.
    typesize, nbytes, blocksize : int
        Of the chunk, in bytes.
    """
    flags = _EXTENDED | _NOT_SPLIT
    limits = max(1, min(blocksize, nbytes))
    return _FIELDS.pack(
        5,
        1,
        flags,
        min(typesize, 255),
        nbytes,
        limits,
        CHUNK_HEADER_BYTES,
        bytes(6),
        0,
        0,
        bytes(6),
        0,
        special << 4,
    )
