"""Decoded blocks in memory: what is read again and again is decoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from caterva2.model.manifest import Head

__all__ = ["Decoded", "DecodedStats"]

EXTRA_BYTES = 512
"""What a block costs beside its bytes: to be found, and to be known to have been used."""

Raw = npt.NDArray[np.uint8]

_Key = tuple[str, str, str, int]


@dataclass(slots=True)
class DecodedStats:
    """What happened in a `Decoded`.

    Attributes
    ----------
    hits, misses : int
        Blocks that were here when asked for, and that were not.
    cached_bytes : int
        What is here now.
    """

    hits: int = 0
    misses: int = 0
    cached_bytes: int = 0


@dataclass(slots=True)
class _Chunk:
    """The blocks of a chunk that are kept, by number, what they take, and what that costs."""

    blocks: dict[int, Raw] = field(default_factory=dict)
    nbytes: int = 0
    cost: int = 0


class Decoded:
    """Blocks by version and chunk; those of the chunk used least recently go first. Can be used by threads.

    They come from bytes that were verified, and a version never changes: so they are right for as long as
    they are kept. A block is kept when it is used again, and only as much is known to have been used once
    as can be kept: who reads more than that from end to end pushes out nothing, however often.

    Parameters
    ----------
    limit_bytes : int
        Most that the blocks may take, `EXTRA_BYTES` for each included.

    Attributes
    ----------
    stats : DecodedStats
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.stats = DecodedStats()
        self._cost = 0
        self._lock = threading.Lock()
        self._chunks: OrderedDict[_Key, _Chunk] = OrderedDict()
        self._used: OrderedDict[_Key, tuple[set[int], int]] = OrderedDict()  # once: blocks, bytes of a block
        self._used_bytes = 0

    def get(self, head: Head, nchunk: int, blocks: Sequence[int]) -> list[Raw] | None:
        """Return some blocks of a chunk, each as its bytes; None unless all of them are here."""
        with self._lock:
            chunk = self._chunks.get(key := _key(head, nchunk))
            found = [] if chunk is None else [chunk.blocks.get(block) for block in blocks]
            kept = [block for block in found if block is not None]
            if len(kept) < len(blocks):
                self.stats.misses += len(blocks)
                return None
            self.stats.hits += len(blocks)
            self._chunks.move_to_end(key)
            return kept

    def used_before(self, head: Head, nchunk: int, blocks: Sequence[int], blocksize: int) -> bool:
        """Return whether all of some blocks are here, or were used before; note that they are used now.

        Parameters
        ----------
        head : Head
        nchunk : int
        blocks : sequence of int
        blocksize : int
            What a block takes, in bytes.
        """
        with self._lock:
            key = _key(head, nchunk)
            chunk = self._chunks.get(key)
            absent = [b for b in blocks if chunk is None or b not in chunk.blocks]
            return not self._note(key, absent, blocksize)

    def put(self, head: Head, nchunk: int, blocks: Sequence[int], raw: memoryview) -> None:
        """Keep those of some blocks, decoded one after the other, that are used for the second time."""
        size = len(raw) // len(blocks)
        if not size or size * len(blocks) != len(raw):
            return  # the last block of a plain frame may be short
        key = _key(head, nchunk)
        with self._lock:
            chunk = self._chunks.get(key)
            absent = [b for b in blocks if chunk is None or b not in chunk.blocks]
            first = self._note(key, absent, size)
            places = {block: n for n, block in enumerate(blocks) if block in absent and block not in first}
        if places and len(places) * (size + EXTRA_BYTES) <= self.limit_bytes:
            rows = np.frombuffer(raw, np.uint8).reshape(len(blocks), size)
            kept = rows.copy() if len(places) == len(rows) else rows[list(places.values())]
            self._keep(key, list(places), kept)  # never `raw` itself, which may be used again

    def _note(self, key: _Key, blocks: Sequence[int], blocksize: int) -> set[int]:
        """Note that blocks are used; return those for which it is the first time, as far as is known."""
        known, _ = self._used.get(key, (set(), 0))
        first = {block for block in blocks if block not in known}
        if first:
            self._used[key] = known | first, blocksize
            self._used_bytes += len(first) * (blocksize + EXTRA_BYTES)
            while self._used_bytes > self.limit_bytes and self._used:
                _, (forgotten, size) = self._used.popitem(last=False)
                self._used_bytes -= len(forgotten) * (size + EXTRA_BYTES)
        return first

    def _keep(self, key: _Key, blocks: Sequence[int], rows: Raw) -> None:
        with self._lock:
            chunk = self._chunks.setdefault(key, _Chunk())
            self._chunks.move_to_end(key)
            for block, row in zip(blocks, rows, strict=True):
                if block not in chunk.blocks:  # another thread may have been as fast
                    chunk.blocks[block] = row
            chunk.nbytes += rows.nbytes
            chunk.cost += rows.nbytes + EXTRA_BYTES * len(blocks)
            self.stats.cached_bytes += rows.nbytes
            self._cost += rows.nbytes + EXTRA_BYTES * len(blocks)
            while self._cost > self.limit_bytes:
                _, oldest = self._chunks.popitem(last=False)
                self.stats.cached_bytes -= oldest.nbytes
                self._cost -= oldest.cost


def _key(head: Head, nchunk: int) -> _Key:
    # an etag alone names no version: two datasets may have the same one
    return head.path.root, head.path.name, head.etag, nchunk
