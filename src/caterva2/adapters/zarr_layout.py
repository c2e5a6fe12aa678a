"""How an array looks as the objects of a Zarr store, and which elements each byte of them is.

A chunk of the array is a shard, made of parts about as large as its blocks: so who reads a part of a chunk
gets blocks, not the chunk. Parts are stored uncompressed here (what is moved is compressed anyway), one after
the other and all of the same size, so the index of a shard is known without its data.

Format: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Box", "Layout", "Piece", "nearest_divisor"]

Box = tuple[slice, ...]

ENTRY_BYTES = 16
"""Offset and size of a part in the index of a shard."""

ABSENT = 2**64 - 1
"""Offset and size of a part that is not stored."""


def nearest_divisor(length: int, wanted: int) -> int:
    """Return the divisor of a length that is nearest to another one, by their ratio."""
    small = [n for n in range(1, math.isqrt(length) + 1) if length % n == 0]
    return min((*small, *(length // n for n in small)), key=lambda n: max(n, wanted) / min(n, wanted))


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a shard, or a whole chunk, as bytes of an object.

    Attributes
    ----------
    start : int
        Where it begins, in bytes.
    box : tuple of slice
        Which elements of the array it has; it may end beyond the array.
    """

    start: int
    box: Box


@dataclass(frozen=True)
class Layout:
    """The grid of an array in a Zarr store.

    Attributes
    ----------
    shape, chunks, blocks : tuple of int
        Of the array.
    itemsize : int
        In bytes.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    itemsize: int

    @cached_property
    def parts(self) -> tuple[int, ...]:
        """Elements of a part along each dimension: blocks, as far as chunks are made of whole ones."""
        return tuple(map(nearest_divisor, self.chunks, self.blocks))

    @property
    def sharded(self) -> bool:
        """Whether chunks have several parts."""
        return self.parts != self.chunks

    @cached_property
    def part_counts(self) -> tuple[int, ...]:
        """Parts of a chunk along each dimension."""
        return tuple(chunk // part for chunk, part in zip(self.chunks, self.parts, strict=True))

    @cached_property
    def chunk_counts(self) -> tuple[int, ...]:
        """Chunks along each dimension."""
        return tuple(-(-length // chunk) for length, chunk in zip(self.shape, self.chunks, strict=True))

    @cached_property
    def part_bytes(self) -> int:
        """Size of a part, in bytes."""
        return math.prod(self.parts) * self.itemsize

    @cached_property
    def data_bytes(self) -> int:
        """Size of all parts of a chunk, in bytes."""
        return math.prod(self.chunks) * self.itemsize

    @property
    def index_bytes(self) -> int:
        """Size of the index behind them, in bytes."""
        return ENTRY_BYTES * math.prod(self.part_counts) if self.sharded else 0

    def has_chunk(self, chunk: Sequence[int]) -> bool:
        """Return whether there is a chunk of these coordinates."""
        return len(chunk) == len(self.shape) and all(
            0 <= n < count for n, count in zip(chunk, self.chunk_counts, strict=True)
        )

    def index(self, chunk: Sequence[int]) -> bytes:
        """Return the index of a shard."""
        count = math.prod(self.part_counts)
        entries = np.empty((count, 2), "<u8")
        entries[:, 0] = np.arange(count) * self.part_bytes
        entries[:, 1] = self.part_bytes
        beyond = np.zeros(self.part_counts, bool)  # of the end of the array
        for axis, (n, length) in enumerate(zip(chunk, self.shape, strict=True)):
            begins = n * self.chunks[axis] + np.arange(self.part_counts[axis]) * self.parts[axis]
            beyond |= np.expand_dims(begins >= length, tuple(range(1, beyond.ndim - axis)))
        entries[beyond.reshape(-1)] = ABSENT
        return entries.tobytes()

    def chunk_box(self, chunk: Sequence[int]) -> Box:
        """Return which elements a chunk has."""
        return tuple(
            slice(n * length, (n + 1) * length) for n, length in zip(chunk, self.chunks, strict=True)
        )

    def pieces(self, chunk: Sequence[int], start: int, stop: int) -> list[Piece]:
        """Return the parts of a chunk that have some bytes of it."""
        first, last = start // self.part_bytes, -(-min(stop, self.data_bytes) // self.part_bytes)
        return [Piece(n * self.part_bytes, self._part_box(chunk, n)) for n in range(first, last)]

    def _part_box(self, chunk: Sequence[int], number: int) -> Box:
        where = np.unravel_index(number, self.part_counts) if self.part_counts else ()
        begins = [
            n * length + int(w) * part
            for n, length, w, part in zip(chunk, self.chunks, where, self.parts, strict=True)
        ]
        return tuple(slice(begin, begin + part) for begin, part in zip(begins, self.parts, strict=True))

    def in_parts(self, elements: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
        """Return the elements of a whole chunk as its parts, one after the other."""
        split = [n for pair in zip(self.part_counts, self.parts, strict=True) for n in pair]
        ndim = len(self.chunks)
        order = [*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2)]
        return elements.reshape(split).transpose(order).tobytes()
