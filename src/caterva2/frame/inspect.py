"""The head of a manifest, made from a file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import CHUNK_HEADER_BYTES, parse_chunk_header
from caterva2.frame.geometry import Geometry, array_geometry, frame_geometry
from caterva2.frame.layout import (
    HEADER_MIN_BYTES,
    MAX_CHUNKS,
    MAX_TRAILER_BYTES,
    TRAILER_MIN_BYTES,
    FrameHeader,
    header_size,
    parse_header,
    trailer_size,
)
from caterva2.frame.metadata import parse_b2nd, vlmeta
from caterva2.frame.pages import Read, StoredIndex, chunk_spans, chunk_stops, parse_index
from caterva2.model.extents import (
    FILE_EXTENT_BYTES,
    PAGE_BYTES,
    Extent,
    Fixed,
    digest,
    page_starts,
)
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath, Kind, kind_of

__all__ = ["Read", "describe", "inspect"]

MAX_EXTENTS = 2**30
"""Most extent numbers of a version: a presence map has a bit for each."""

MAX_DEAD_BYTES = 256 * 1024 * 1024
"""Most bytes between two parts of a frame that belong to neither: they travel as one extent."""

FEW_CHUNKS = 64
"""The index of so many is parsed again for the first page rather than kept."""

_FIRST_READ_BYTES = 4096


def describe(read: Read, *, path: DatasetPath, size: int, mtime_ns: int) -> Head:
    """Describe a file as what its name says it is; one that is not, as a file, with the reason in ``error``.

    Parameters and what is returned are as of `inspect`.
    """
    try:
        return inspect(read, path=path, kind=kind_of(path.name), size=size, mtime_ns=mtime_ns)
    except (Corrupt, Unsupported) as error:
        as_file = inspect(read, path=path, kind="file", size=size, mtime_ns=mtime_ns)
        return replace(as_file, meta={**as_file.meta, "error": str(error)})


def inspect(read: Read, *, path: DatasetPath, kind: Kind, size: int, mtime_ns: int) -> Head:
    """Describe a file.

    Parameters
    ----------
    read : callable
        ``(offset, size)`` → exactly `size` bytes of the file, else raises `Corrupt`.
    path : DatasetPath
    kind : Kind
        What the file is to be read as.
    size : int
        Of the file, in bytes.
    mtime_ns : int
        In nanoseconds since the epoch.

    Returns
    -------
    Head
        With an empty etag and generation 0: these are the publisher's to give.

    Raises
    ------
    Corrupt
        If the file is not a well-formed frame of exactly its size.
    Unsupported
        If it is one that cannot be sliced here; the message names what it is.
    """
    if kind == "file":
        return _file(path, size, mtime_ns)
    raw, header = _read_header(read, size)
    trailer_start, trailer = _read_trailer(read, header)
    index_bytes = trailer_start - header.index_start
    if index_bytes > MAX_TRAILER_BYTES + 9 * MAX_CHUNKS:
        raise Unsupported(f"a frame index of {index_bytes:,} bytes")
    index = read(header.index_start, index_bytes) if index_bytes else b""
    extent = Extent(Fixed.INDEX, header.index_start, index_bytes, digest(index))
    offsets, stops = _spans(read, header, extent, index)
    geometry = _geometry(read, kind, header, offsets)
    slots = geometry.grid.nblocks + 2
    if header.nchunks * slots > MAX_EXTENTS:
        raise Unsupported(f"a frame of {header.nchunks:,} chunks of {slots - 2:,} blocks: too many to track")
    stored = offsets[offsets >= 0]
    first = int(stored.min()) if len(stored) else header.index_start
    gap_bytes = first - header.header_bytes
    lengths = stops - offsets
    if gap_bytes > MAX_DEAD_BYTES or lengths.max(initial=0) > MAX_DEAD_BYTES + 2**31:
        raise Unsupported(f"a frame with more than {MAX_DEAD_BYTES:,} dead bytes in one place: copy it anew")
    fixed = [Extent(Fixed.HEADER, 0, len(raw), digest(raw))]
    if gap_bytes:
        gap = read(header.header_bytes, gap_bytes)
        fixed.append(Extent(Fixed.GAP, header.header_bytes, gap_bytes, digest(gap)))
    if index:
        fixed.append(extent)
    fixed.append(Extent(Fixed.TRAILER, trailer_start, len(trailer), digest(trailer)))
    return Head(
        path=path,
        etag="",
        generation=0,
        kind=kind,
        size=size,
        mtime_ns=mtime_ns,
        header=raw,
        fixed=tuple(fixed),
        nchunks=header.nchunks,
        slots_per_chunk=slots,
        page_starts=page_starts(lengths),
        meta=_meta(kind, header, geometry, vlmeta(trailer)),
    )


def _spans(
    read: Read, header: FrameHeader, extent: Extent, index: bytes
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where chunks begin and end, as `chunk_spans`."""
    if header.variable:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if header.nchunks <= FEW_CHUNKS:
        offsets = parse_index(header, index)
        return offsets, chunk_stops(offsets, header.index_start)
    return chunk_spans(StoredIndex(header.raw, extent, read))


def _file(path: DatasetPath, size: int, mtime_ns: int) -> Head:
    nchunks = -(-size // FILE_EXTENT_BYTES)
    return Head(
        path=path,
        etag="",
        generation=0,
        kind="file",
        size=size,
        mtime_ns=mtime_ns,
        header=b"",
        fixed=(),
        nchunks=nchunks,
        slots_per_chunk=2,
        page_starts=np.arange(0, nchunks, PAGE_BYTES // FILE_EXTENT_BYTES, dtype=np.int64),
        meta={"accept_ranges": "bytes"},
    )


def _read_header(read: Read, size: int) -> tuple[bytes, FrameHeader]:
    if size < HEADER_MIN_BYTES + TRAILER_MIN_BYTES:
        raise Corrupt(f"a file of {size} bytes is too short for a Blosc2 frame")
    start = read(0, min(size, _FIRST_READ_BYTES))
    length = header_size(start)
    if length > size:
        raise Corrupt(f"the header of the frame is cut: it has {length:,} bytes, the file {size:,}")
    raw = start[:length] if length <= len(start) else read(0, length)
    header = parse_header(raw)
    if header.frame_bytes != size:
        raise Corrupt(f"the frame has {header.frame_bytes:,} bytes, the file {size:,}: cut, or being written")
    return raw, header


def _read_trailer(read: Read, header: FrameHeader) -> tuple[int, bytes]:
    end = read(header.frame_bytes - TRAILER_MIN_BYTES, TRAILER_MIN_BYTES)
    length = trailer_size(end, header)
    start = header.frame_bytes - length
    return start, read(start, length)


def _geometry(read: Read, kind: Kind, header: FrameHeader, offsets: npt.NDArray[np.int64]) -> Geometry:
    if kind == "array":
        return array_geometry(header)
    blocksize = header.blocksize or max(1, header.chunksize)
    stored = offsets[:-1][offsets[:-1] >= 0] if len(offsets) > 1 else offsets[offsets >= 0]
    if len(stored):  # the header of the frame has that of the last chunk, which may be short
        blocksize = parse_chunk_header(read(int(stored[0]), CHUNK_HEADER_BYTES)).blocksize
    return frame_geometry(header, min(blocksize, max(1, header.chunksize)))


def _meta(kind: Kind, header: FrameHeader, geometry: Geometry, attrs: dict[str, Any]) -> dict[str, Any]:
    schunk = {
        "cbytes": header.cbytes,
        "nbytes": header.nbytes,
        "cratio": header.nbytes / header.cbytes if header.cbytes else 0.0,
        "typesize": header.typesize,
        "blocksize": geometry.blocksize,
        "chunksize": max(0, header.chunksize),
        "chunkshape": max(0, header.chunksize) // header.typesize,
        "contiguous": True,
        "nchunks": header.nchunks,
        "urlpath": None,
        "vlmeta": attrs,
        "cparams": {**header.cparams(), "blocksize": geometry.blocksize},
    }
    if kind == "frame":
        return {**schunk, "accept_ranges": "bytes", "attrs": attrs}
    grid = geometry.grid
    return {
        "shape": list(grid.shape),
        "chunks": list(grid.chunks),
        "blocks": list(grid.blocks),
        "dtype": parse_b2nd(header.metalayers["b2nd"]).dtype_name,
        "accept_ranges": "bytes",
        "schunk": schunk,
        "attrs": attrs,
    }
