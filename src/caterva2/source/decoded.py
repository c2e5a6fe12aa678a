"""Decoded blocks of small reads, in memory: what is read again and again is decoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from caterva2.model.manifest import Head

__all__ = ["Decoded", "DecodedStats"]

SEEN = 1 << 14
"""So many blocks are known by name that were used once; blocks are kept from their second use on."""

_Key = tuple[str, str, str, int, int]


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


class Decoded:
    """Blocks by version, least recently used ones go first. Belongs to one event loop.

    They come from bytes that were verified, and a version never changes: so they are right for as long as
    they are kept. A block is kept when it is used again: who reads an array from end to end, however slowly,
    pushes out nothing.

    Parameters
    ----------
    limit_bytes : int
        Most that the blocks may take.

    Attributes
    ----------
    stats : DecodedStats
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.stats = DecodedStats()
        self._blocks: OrderedDict[_Key, bytes] = OrderedDict()
        self._seen: OrderedDict[_Key, None] = OrderedDict()

    def get(self, head: Head, nchunk: int, blocks: Sequence[int]) -> memoryview | None:
        """Return some blocks of a chunk, one after the other; None unless all of them are here."""
        keys = _keys(head, nchunk, blocks)
        found = [data for key in keys if (data := self._blocks.get(key)) is not None]
        if len(found) < len(keys):
            self.stats.misses += len(keys)
            return None
        self.stats.hits += len(keys)
        for key in keys:
            self._blocks.move_to_end(key)
        return memoryview(found[0] if len(found) == 1 else b"".join(found))

    def put(self, head: Head, nchunk: int, blocks: Sequence[int], raw: memoryview) -> None:
        """Keep those of some blocks, decoded one after the other, that are used for the second time."""
        nbytes = len(raw) // len(blocks)
        if nbytes * len(blocks) != len(raw) or nbytes > self.limit_bytes:
            return  # the last block of a plain frame may be short
        for n, key in enumerate(_keys(head, nchunk, blocks)):
            if key in self._blocks:
                continue
            if key in self._seen:
                del self._seen[key]
                self._keep(key, bytes(raw[n * nbytes : (n + 1) * nbytes]))  # a view would hold on to others
            else:
                self._seen[key] = None
                if len(self._seen) > SEEN:
                    self._seen.popitem(last=False)

    def _keep(self, key: _Key, block: bytes) -> None:
        self._blocks[key] = block
        self.stats.cached_bytes += len(block)
        while self.stats.cached_bytes > self.limit_bytes:
            _, oldest = self._blocks.popitem(last=False)
            self.stats.cached_bytes -= len(oldest)


def _keys(head: Head, nchunk: int, blocks: Sequence[int]) -> list[_Key]:
    # an etag alone names no version: two datasets may have the same one
    root, name, etag = head.path.root, head.path.name, head.etag
    return [(root, name, etag, nchunk, block) for block in blocks]
