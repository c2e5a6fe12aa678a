"""The contiguous frame of C-Blosc2: header | chunks | index | trailer.

Format: README_CFRAME_FORMAT.rst of C-Blosc2 3.3. Integers of the header and the trailer are big-endian, as
MessagePack has them; all else is little-endian. Nothing here trusts a length or an offset.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgpack

from caterva2.errors import Corrupt, Unsupported

__all__ = [
    "HEADER_MIN_BYTES",
    "MAX_CHUNKS",
    "MAX_HEADER_BYTES",
    "MAX_TRAILER_BYTES",
    "TRAILER_MIN_BYTES",
    "FrameHeader",
    "header_size",
    "metalayers",
    "parse_header",
    "resized_header",
    "trailer_size",
]

HEADER_MIN_BYTES = 87
"""The header without metalayers, in bytes."""

MAX_HEADER_BYTES = 1024 * 1024
"""Largest header that is taken, in bytes: it travels with each manifest."""

TRAILER_MIN_BYTES = 25

MAX_TRAILER_BYTES = 64 * 1024 * 1024
"""Largest trailer that is taken, in bytes."""

MAX_CHUNKS = 8 * 1024 * 1024
"""Most chunks of a frame: a small file can claim any number of chunks that have no bytes."""

MAX_METALAYERS = 16
"""As in C-Blosc2; the limit for those of the trailer is 8192 there."""

_MAGIC = b"b2frame\0"
# Where MessagePack's type bytes must stand, and which
_MARKS = {
    1: 0xA8, 10: 0xD2, 15: 0xCF, 24: 0xA4, 29: 0xD3, 38: 0xD3,
    47: 0xD2, 52: 0xD2, 57: 0xD2, 62: 0xD1, 65: 0xD1, 69: 0xD8,
}  # fmt: skip
_marks_of, _WANTED_MARKS = itemgetter(*_MARKS), tuple(_MARKS.values())
# From byte 16, each with a mark behind it: frame length | flags, type, codecs, others | nbytes | cbytes |
# typesize | blocksize | chunksize | threads
_FIELDS = struct.Struct(">Qx4Bxqxqxixixixh")
_USER_CODEC = 6


@dataclass(frozen=True)
class FrameHeader:
    """What the header of a frame says.

    Attributes
    ----------
    raw : bytes
        As stored.
    header_bytes, frame_bytes : int
        Size of the header and of the whole frame, in bytes.
    nbytes, cbytes : int
        Size of all chunks, decompressed and compressed (dead bytes included), in bytes.
    typesize, blocksize, chunksize : int
        In bytes. `blocksize` is that of the chunk appended last, 0 before there is one.
    codec, codec_meta, clevel : int
        Numbered as `blosc2.Codec`.
    filters, filters_meta : bytes
        Six of each.
    splitmode, nthreads : int
    use_dict : bool
    variable : str or None
        Which of the things that make chunks unequal this frame has; None for regular frames.
    metalayers : dict
        Contents by name.
    """

    raw: bytes = field(repr=False)
    header_bytes: int
    frame_bytes: int
    nbytes: int
    cbytes: int
    typesize: int
    blocksize: int
    chunksize: int
    codec: int
    codec_meta: int
    clevel: int
    filters: bytes
    filters_meta: bytes
    splitmode: int
    nthreads: int
    use_dict: bool
    variable: str | None
    metalayers: dict[str, bytes] = field(repr=False)

    @property
    def index_start(self) -> int:
        """Where the index begins, in bytes.

        A frame all of whose chunks were deleted still claims their compressed size, but has neither them nor
        an index.
        """
        return self.header_bytes + (self.cbytes if self.nbytes else 0)

    @property
    def nchunks(self) -> int:
        """Number of chunks of a regular frame."""
        return -(-self.nbytes // self.chunksize) if self.nbytes else 0

    def chunk_nbytes(self, nchunk: int) -> int:
        """Return the decompressed size of a chunk, in bytes: only the last may be shorter than the rest."""
        return min(self.chunksize, self.nbytes - nchunk * self.chunksize)

    def cparams(self) -> dict[str, Any]:
        """Return the compression parameters, by the names of `blosc2.CParams`, enumerations as integers."""
        return {
            "codec": self.codec,
            "codec_meta": self.codec_meta,
            "clevel": self.clevel,
            "use_dict": self.use_dict,
            "typesize": self.typesize,
            "nthreads": self.nthreads,
            "blocksize": self.blocksize,
            "splitmode": self.splitmode,
            "filters": list(self.filters),
            "filters_meta": list(self.filters_meta),
            "tuner": 0,  # frames do not say which tuner made them
        }


def header_size(start: bytes) -> int:
    """Return the size of a frame's header, in bytes.

    Parameters
    ----------
    start : bytes
        The first bytes of the file, at least `HEADER_MIN_BYTES` of them where there are as many.

    Raises
    ------
    Corrupt
        If this is not the begin of a contiguous frame.
    Unsupported
        If the header is larger than `MAX_HEADER_BYTES`.
    """
    if len(start) < HEADER_MIN_BYTES or start[2:10] != _MAGIC:
        raise Corrupt("not a Blosc2 frame: it does not begin like one")
    size = int.from_bytes(start[11:15], "big", signed=True)
    if _marks_of(start) != _WANTED_MARKS or size < HEADER_MIN_BYTES:
        wrong = [at for at, mark in _MARKS.items() if start[at] != mark]
        raise Corrupt(f"the header of the frame is malformed at byte {wrong[0] if wrong else 11}")
    if size > MAX_HEADER_BYTES:
        raise Unsupported(f"a frame header of {size:,} bytes; the limit is {MAX_HEADER_BYTES:,}")
    return size


def parse_header(raw: bytes) -> FrameHeader:
    """Parse the header of a frame.

    Parameters
    ----------
    raw : bytes
        The header, exactly as many bytes as `header_size` says.

    Raises
    ------
    Corrupt
        If it is malformed or contradicts itself.
    Unsupported
        If it is of another kind than contiguous, of a newer version, or too large for us.
    """
    if header_size(raw) != len(raw):
        raise Corrupt(f"the header of the frame has {len(raw)} bytes, not the {header_size(raw)} it claims")
    frame_bytes, flags, frame_type, codecs, other, *numbers = _FIELDS.unpack_from(raw, 16)
    nbytes, cbytes, typesize, blocksize, chunksize, nthreads = numbers
    if frame_type & 0x0F:
        raise Unsupported(f"a frame of type {frame_type & 0x0F}: only contiguous frames are files")
    if flags & 0x0F > 3 or (flags >> 4) & 3 != 1:
        raise Unsupported(f"a frame of format version {flags & 0x0F}, or with other than 64-bit offsets")
    variable = (
        "variable-length blocks" if flags & 0x80 else "variable-length chunks" if flags & 0x40 else None
    )
    codec = codecs & 0x0F
    header = FrameHeader(
        raw=raw,
        header_bytes=len(raw),
        frame_bytes=frame_bytes,
        nbytes=nbytes,
        cbytes=cbytes,
        typesize=typesize,
        blocksize=blocksize,
        chunksize=chunksize,
        codec=raw[77] if codec == _USER_CODEC else codec,
        codec_meta=raw[78],
        clevel=codecs >> 4,
        filters=raw[71:77],
        filters_meta=raw[79:85],
        splitmode=(other & 3) + 1,  # stored from 0, enumerated from 1
        nthreads=max(1, nthreads),
        use_dict=bool(raw[85] & 1),
        variable=variable if nbytes else None,
        metalayers=metalayers(raw, HEADER_MIN_BYTES, MAX_METALAYERS),
    )
    _check(header)
    return header


def resized_header(header: FrameHeader, cbytes: int, end_bytes: int) -> bytes:
    """Return a header with other chunks behind it.

    Parameters
    ----------
    header : FrameHeader
    cbytes : int
        Size of all chunks, compressed, in bytes.
    end_bytes : int
        Size of the index and the trailer, in bytes.
    """
    raw = bytearray(header.raw)
    struct.pack_into(">Q", raw, 16, header.header_bytes + cbytes + end_bytes)
    struct.pack_into(">q", raw, 39, cbytes)
    return bytes(raw)


def _check(header: FrameHeader) -> None:
    ranges = {
        "uncompressed size": header.nbytes >= 0,
        "compressed size": header.cbytes >= 0,
        "frame length": header.index_start + TRAILER_MIN_BYTES <= header.frame_bytes,
        "type size": header.typesize > 0,
        "chunk size": header.chunksize > 0 or not header.nbytes or header.variable is not None,
    }
    wrong = [name for name, sound in ranges.items() if not sound]
    if wrong:
        raise Corrupt(f"the header of the frame has an impossible {', '.join(wrong)}")
    if header.variable is None and header.nchunks > MAX_CHUNKS:
        raise Unsupported(f"a frame of {header.nchunks:,} chunks; the limit is {MAX_CHUNKS:,}")


def trailer_size(end: bytes, header: FrameHeader) -> int:
    """Return the size of a frame's trailer, in bytes.

    Parameters
    ----------
    end : bytes
        The last `TRAILER_MIN_BYTES` of the frame, or more.

    Raises
    ------
    Corrupt
        If it is malformed.
    Unsupported
        If it is larger than `MAX_TRAILER_BYTES`.
    """
    if len(end) < TRAILER_MIN_BYTES or end[-23] != 0xCE or end[-18] != 0xD8:
        raise Corrupt("the trailer of the frame is malformed")
    size = int.from_bytes(end[-22:-18], "big")
    if not TRAILER_MIN_BYTES <= size <= header.frame_bytes - header.index_start:
        raise Corrupt(f"the trailer of the frame cannot have {size} bytes")
    if size > MAX_TRAILER_BYTES:
        raise Unsupported(f"a frame trailer of {size:,} bytes; the limit is {MAX_TRAILER_BYTES:,}")
    return size


def metalayers(raw: bytes, start: int, limit: int) -> dict[str, bytes]:
    """Return the metalayers of a header or a trailer.

    Parameters
    ----------
    raw : bytes
        The whole header or trailer: offsets count from its begin.
    start : int
        Where the section of metalayers begins.
    limit : int
        Most metalayers there may be.

    Raises
    ------
    Corrupt
        If the section is malformed.
    """
    if raw[start : start + 1] != b"\x93" or raw[start + 4 : start + 5] != b"\xde":
        raise Corrupt("the metalayers of the frame are malformed")
    if raw[start + 5 : start + 7] == b"\0\0":
        return {}
    try:
        unpacker = msgpack.Unpacker(raw=False, max_buffer_size=len(raw), strict_map_key=True)
        unpacker.feed(raw[start + 4 :])
        offsets = unpacker.unpack()
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Corrupt(f"the metalayers of the frame are malformed: {error!r}") from error
    if len(offsets) > limit:
        raise Corrupt(f"a frame cannot have {len(offsets)} metalayers")
    return {str(name): _content(raw, offset) for name, offset in offsets.items()}


def _content(raw: bytes, offset: Any) -> bytes:  # Any: as MessagePack had it
    if not isinstance(offset, int) or not 0 < offset <= len(raw) - 5 or raw[offset] != 0xC6:
        raise Corrupt("the metalayers of the frame are malformed: a bad offset")
    size = int.from_bytes(raw[offset + 1 : offset + 5], "big")
    content = raw[offset + 5 : offset + 5 + size]
    if len(content) != size:
        raise Corrupt("the metalayers of the frame are malformed: a bad length")
    return content
