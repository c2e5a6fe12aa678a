"""Extents: the byte ranges that are fetched, verified, cached and evicted as one.

They are numbered, for presence maps: ``0 … FIXED_SLOTS - 1`` are the fixed parts of a frame (header, gap,
index, trailer), then each chunk has as many numbers as it has blocks and two more: its head (the whole chunk,
or the preamble), its slack (dead bytes behind it), its blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from blake3 import blake3

__all__ = [
    "DIGEST_BYTES",
    "FILE_EXTENT_BYTES",
    "FIXED_SLOTS",
    "PAGE_BYTES",
    "WHOLE_CHUNK_BYTES",
    "ChunkKind",
    "Extent",
    "Fixed",
    "digest",
    "page_starts",
]

DIGEST_BYTES = 16
"""Digests are BLAKE3, cut to 128 bits."""

FILE_EXTENT_BYTES = 256 * 1024
"""Extents of files that are no frames, in bytes."""

WHOLE_CHUNK_BYTES = 256 * 1024
"""Chunks smaller than this, compressed, are one extent, in bytes."""

PAGE_BYTES = 32 * 1024 * 1024
"""A page describes at most this much of the file, in bytes, or one chunk."""

PAGE_CHUNKS = 1024
"""A page describes at most this many chunks."""


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the digest of some bytes: BLAKE3, the first `DIGEST_BYTES`."""
    return blake3(data).digest(DIGEST_BYTES)


class Fixed(IntEnum):
    """The parts of a frame that are not chunks; their values are extent numbers."""

    HEADER = 0
    GAP = 1
    INDEX = 2
    TRAILER = 3


FIXED_SLOTS = len(Fixed)


class ChunkKind(IntEnum):
    """How a chunk is stored."""

    WHOLE = 0
    """One extent."""
    BLOCKS = 1
    """A preamble and blocks, each an extent."""
    ZEROS = 2
    """No bytes: all zeros."""
    NANS = 3
    """No bytes: all NaN."""
    UNINIT = 4
    """No bytes: never written; reads as zeros."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A byte range of a version that is fetched, verified, cached and evicted as one.

    Attributes
    ----------
    number : int
        Its number within the version, as in the module's docstring.
    offset, size : int
        Where it is in the file, in bytes; `size` is at least 1.
    digest : bytes
        `DIGEST_BYTES` of BLAKE3.
    """

    number: int
    offset: int
    size: int
    digest: bytes

    @property
    def stop(self) -> int:
        """One past its last byte."""
        return self.offset + self.size


def page_starts(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cut a run of chunks into pages.

    Runs of `PAGE_CHUNKS` are halved until each part is small enough. So a chunk that gets another size, or
    chunks that are appended, move no cuts but those near them: what was said of all others can be said in the
    same pages.

    Parameters
    ----------
    sizes : ndarray of int64, shape (nchunks,)
        Bytes of file that each chunk takes, slack included.

    Returns
    -------
    ndarray of int64, shape (npages,)
        First chunk of each page: each page takes at most `PAGE_BYTES` or one chunk, and `PAGE_CHUNKS`.
    """
    count = len(sizes)
    if count <= PAGE_CHUNKS and sizes.sum() <= PAGE_BYTES:  # nearly all there are
        return np.zeros(min(count, 1), dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(sizes)])
    starts: list[int] = []
    runs = [(first, PAGE_CHUNKS) for first in range(0, count, PAGE_CHUNKS)][::-1]
    while runs:
        first, length = runs.pop()
        if length > 1 and before[min(first + length, count)] - before[first] > PAGE_BYTES:
            length //= 2
            if first + length < count:
                runs.append((first + length, length))
            runs.append((first, length))
        else:
            starts.append(first)
    return np.array(starts, dtype=np.int64)
