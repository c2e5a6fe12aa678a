"""The pages of a manifest: where every chunk and block of a run of chunks is, and what its digest is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from caterva2.errors import Corrupt
from caterva2.frame.chunk import CHUNK_HEADER_BYTES, ChunkHeader, Special, block_starts, parse_chunk_header
from caterva2.frame.geometry import geometry_of
from caterva2.frame.layout import FrameHeader, parse_header
from caterva2.model.extents import (
    DIGEST_BYTES,
    FILE_EXTENT_BYTES,
    WHOLE_CHUNK_BYTES,
    ChunkKind,
    Extent,
    Fixed,
    digest,
)
from caterva2.model.manifest import Head
from caterva2.model.page import Page

__all__ = ["Read", "StoredIndex", "chunk_spans", "chunk_stops", "index_offsets", "make_page", "parse_index"]

Read = Callable[[int, int], bytes]
"""``(offset, size)`` → exactly `size` bytes, else raises `Corrupt`."""

READ_BYTES = 8 * 1024 * 1024
"""Most that is read at once, but for larger extents."""

_SPECIAL = {Special.ZEROS: ChunkKind.ZEROS, Special.NANS: ChunkKind.NANS, Special.UNINIT: ChunkKind.UNINIT}


def index_offsets(head: Head, index: bytes) -> npt.NDArray[np.int64]:
    """Return where the chunks of a frame begin.

    Parameters
    ----------
    head : Head
    index : bytes
        Its fixed part ``INDEX``.

    Returns
    -------
    ndarray of int64, shape (nchunks,)
        Offsets in the file, in bytes; negative for chunks that have no bytes.

    Raises
    ------
    Corrupt
        If the index is malformed or contradicts the head.
    """
    header = geometry_of(head).header
    if header is None:
        raise Corrupt(f"{head.path} is no frame: it has no index")
    return parse_index(header, index)


def parse_index(header: FrameHeader, index: bytes) -> npt.NDArray[np.int64]:
    """Do as `index_offsets`, given the frame's header."""
    import blosc2

    count = header.nchunks
    if not count:
        return np.empty(0, dtype=np.int64)
    chunk = parse_chunk_header(index)
    if chunk.nbytes != 8 * count or chunk.cbytes > len(index):
        raise Corrupt(f"the index of the frame is not one of {count:,} chunks")
    try:
        raw = blosc2.decompress2(index, nthreads=1)
    except (ValueError, RuntimeError) as error:
        raise Corrupt(f"the index of the frame cannot be decompressed: {error}") from error
    stored = np.frombuffer(raw, dtype="<i8")
    if count == 1 and 0 <= stored[0] <= header.index_start - header.header_bytes - 16:
        return stored + header.header_bytes  # most files are small: this is all there is to check
    offsets = np.where(stored >= 0, stored + header.header_bytes, stored)
    ordered = np.sort(offsets[offsets >= 0], kind="stable")  # linear where it is in order, as most are
    is_outside = len(ordered) > 0 and ordered[-1] + 16 > header.index_start
    if is_outside or (len(ordered) > 1 and np.any(np.diff(ordered) < 16)):
        raise Corrupt("the index of the frame has chunks that overlap or lie outside of it")
    if len(ordered) < count:
        kinds = (stored[stored < 0] >> 56) & 7
        if not np.all(np.isin(kinds, list(_SPECIAL))):
            raise Corrupt("the index of the frame has special chunks of an unknown kind")
    return offsets


def chunk_stops(offsets: npt.NDArray[np.int64], end: int) -> npt.NDArray[np.int64]:
    """Return where the bytes behind each chunk end: at the next chunk of the file, or at `end`.

    Parameters
    ----------
    offsets : ndarray of int64, shape (nchunks,)
        As of `index_offsets`.
    end : int
        Where the index begins.

    Returns
    -------
    ndarray of int64, shape (nchunks,)
        Equal to the offset for chunks that have no bytes.
    """
    if len(offsets) == 1:  # as most small files have it
        return np.full(1, end, np.int64) if offsets[0] >= 0 else offsets.copy()
    order = np.argsort(offsets, kind="stable")  # linear where they are in order, as most are
    order = order[np.count_nonzero(offsets < 0) :]
    stops = offsets.copy()
    stops[order] = np.append(offsets[order[1:]], np.full(len(order[:1]), end))
    return stops


@dataclass(frozen=True)
class StoredIndex:
    """The index of a frame that is still to be read; equal to others of the same digest.

    Attributes
    ----------
    header : bytes
        Of the frame.
    extent : Extent
        Its fixed part ``INDEX``.
    read : callable
        Reads the file.
    """

    header: bytes = field(repr=False)
    extent: Extent
    read: Read = field(compare=False)


@lru_cache(maxsize=2)
def chunk_spans(index: StoredIndex) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the bytes of each chunk begin and where those behind it end.

    Of the two versions that were asked for last it is known: a version's pages are made one after the other,
    and the first one often when the version has just been taken.

    Returns
    -------
    offsets, stops : ndarray of int64, shape (nchunks,)
        As of `index_offsets` and `chunk_stops`.

    Raises
    ------
    Corrupt
        If what is read is not the index, or as `index_offsets`.
    """
    data = index.read(index.extent.offset, index.extent.size)
    if digest(data) != index.extent.digest:
        raise Corrupt("the index of the frame is not the one that its head was made of")
    parsed = parse_header(index.header)
    offsets = parse_index(parsed, data)
    return offsets, chunk_stops(offsets, parsed.index_start)


def make_page(read: Read, head: Head, number: int) -> Page:
    """Read and hash a run of chunks.

    Parameters
    ----------
    read : callable
        Reads the file.
    head : Head
    number : int
        Of the page.

    Raises
    ------
    IndexError
        If there is no such page.
    Corrupt
        If a chunk is malformed or contradicts the head.
    """
    if not 0 <= number < head.npages:
        raise IndexError(f"{head.path} has {head.npages} pages, there is no page {number}")
    chunks = head.page_chunks(number)
    rows = _Rows(chunks, head.slots_per_chunk)
    if head.kind == "file":
        for nchunk in chunks:
            offset = nchunk * FILE_EXTENT_BYTES
            size = min(FILE_EXTENT_BYTES, head.size - offset)
            rows.whole(nchunk, offset, size, digest(read(offset, size)))
        return rows.page(number)
    index = head.fixed_extent(Fixed.INDEX)
    if index is None:
        raise Corrupt(f"{head.path} has chunks but no index")
    offsets, stops = chunk_spans(StoredIndex(head.header, index, read))
    for nchunk in chunks:
        if offsets[nchunk] < 0:
            rows.special(nchunk, _SPECIAL[Special(int(offsets[nchunk] >> 56) & 7)])
        else:
            _Hasher(read, head, nchunk, int(offsets[nchunk]), int(stops[nchunk])).add_to(rows)
    return rows.page(number)


class _Rows:
    """The columns of a page while it is made."""

    def __init__(self, chunks: range, slots_per_chunk: int) -> None:
        count = len(chunks)
        self.first = chunks.start
        self.slots_per_chunk = slots_per_chunk
        self.kinds = np.zeros(count, np.uint8)
        self.offsets = np.full(count, -1, np.int64)
        self.sizes = np.zeros(count, np.int64)
        self.slacks = np.zeros(count, np.int64)
        self.digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self.slack_digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self.preambles = np.zeros(count, np.int32)
        self.block_starts: list[npt.NDArray[np.int32]] = []
        self.block_digests: list[npt.NDArray[np.uint8]] = []

    def special(self, nchunk: int, kind: ChunkKind) -> None:
        self.kinds[nchunk - self.first] = kind

    def whole(self, nchunk: int, offset: int, size: int, whole_digest: bytes) -> None:
        row = nchunk - self.first
        self.offsets[row], self.sizes[row] = offset, size
        self.digests[row] = np.frombuffer(whole_digest, np.uint8)

    def slack(self, nchunk: int, size: int, slack_digest: bytes) -> None:
        row = nchunk - self.first
        self.slacks[row] = size
        self.slack_digests[row] = np.frombuffer(slack_digest, np.uint8)

    def blocks(
        self, nchunk: int, preamble: int, starts: npt.NDArray[np.int32], digests: npt.NDArray[np.uint8]
    ) -> None:
        row = nchunk - self.first
        self.kinds[row] = ChunkKind.BLOCKS
        self.preambles[row] = preamble
        self.block_starts.append(starts)
        self.block_digests.append(digests)

    def page(self, number: int) -> Page:
        nblocks = self.slots_per_chunk - 2
        starts = np.array(self.block_starts, np.int32).reshape(len(self.block_starts), nblocks)
        digests = np.array(self.block_digests, np.uint8).reshape(len(starts), nblocks, DIGEST_BYTES)
        columns: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("kinds", "offsets", "sizes", "slacks", "digests", "slack_digests", "preambles")
        }
        return Page(
            number=number,
            first=self.first,
            slots_per_chunk=self.slots_per_chunk,
            block_starts=starts,
            block_digests=digests,
            **columns,
        )


@dataclass(frozen=True)
class _Hasher:
    """One stored chunk and the bytes behind it: ``offset <= at < stop`` of the file."""

    read: Read
    head: Head
    nchunk: int
    offset: int
    stop: int

    def add_to(self, rows: _Rows) -> None:
        # A small chunk in one read; of a large one first the begin
        begin = self.read(self.offset, min(self.stop - self.offset, WHOLE_CHUNK_BYTES))
        header = parse_chunk_header(begin)
        if self.offset + header.cbytes > self.stop:
            raise Corrupt(f"chunk {self.nchunk} of {self.head.path} is longer than the room it has")
        geometry = geometry_of(self.head)
        if header.nbytes != geometry.chunk_nbytes(self.nchunk):
            raise Corrupt(f"chunk {self.nchunk} of {self.head.path} has {header.nbytes:,} bytes of data")
        starts = self._starts(header, begin) if header.cbytes >= WHOLE_CHUNK_BYTES else None
        if starts is None:
            rows.whole(self.nchunk, self.offset, header.cbytes, self._digest(begin, 0, header.cbytes))
        else:
            preamble = int(starts.min())
            rows.whole(self.nchunk, self.offset, header.cbytes, self._digest(begin, 0, preamble))
            rows.blocks(self.nchunk, preamble, starts, self._block_digests(starts, header.cbytes))
        slack = self.stop - self.offset - header.cbytes
        if slack:
            rows.slack(self.nchunk, slack, self._digest(begin, header.cbytes, slack))

    def _starts(self, header: ChunkHeader, begin: bytes) -> npt.NDArray[np.int32] | None:
        """Return the block starts of a chunk that is as the head says; None if it is to stay whole."""
        geometry = geometry_of(self.head)
        nblocks = self.head.slots_per_chunk - 2
        fits = (header.blocksize, header.nblocks) == (geometry.blocksize, nblocks)
        if not (fits and header.has_blocks and geometry.same_pipeline(header)):
            return None
        size = CHUNK_HEADER_BYTES + 4 * nblocks
        if size > len(begin):
            begin = self.read(self.offset, min(size, header.cbytes))
        return block_starts(header, begin)

    def _digest(self, begin: bytes, start: int, size: int) -> bytes:
        """Return the digest of a part of the chunk, from what was read already where that is enough."""
        if start + size <= len(begin):
            return digest(memoryview(begin)[start : start + size])
        hasher = blake3()
        for at in range(start, start + size, READ_BYTES):
            hasher.update(self.read(self.offset + at, min(READ_BYTES, start + size - at)))
        return hasher.digest(DIGEST_BYTES)

    def _block_digests(self, starts: npt.NDArray[np.int32], cbytes: int) -> npt.NDArray[np.uint8]:
        order = np.argsort(starts)
        limits = [*starts[order].tolist(), cbytes]
        digests = np.empty((len(starts), DIGEST_BYTES), np.uint8)
        first = 0
        while first < len(order):
            last = first + 1  # a run of blocks of at most READ_BYTES, or one block
            while last < len(order) and limits[last + 1] - limits[first] <= READ_BYTES:
                last += 1
            data = memoryview(self.read(self.offset + limits[first], limits[last] - limits[first]))
            for n in range(first, last):
                part = data[limits[n] - limits[first] : limits[n + 1] - limits[first]]
                digests[order[n]] = np.frombuffer(digest(part), np.uint8)
            first = last
        return digests
