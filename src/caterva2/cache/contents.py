"""What is here of a version, by digest: so that it is found again in a later one, wherever it is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caterva2.cache.census import stored_manifest
from caterva2.cache.index import Index
from caterva2.cache.version import Version
from caterva2.model.extents import DIGEST_BYTES, FIXED_SLOTS, Extent
from caterva2.model.slots import first_slot, slot_digests, slot_offsets, slot_sizes

__all__ = ["MAX_COMPARED", "Contents", "contents_of"]

MAX_COMPARED = 500_000
"""Most extents of a version that are looked for in a later one; each takes `_ROW_BYTES` of memory."""

_ROW_BYTES = 8 + 8 + 8 + 8 + DIGEST_BYTES

_Ints = npt.NDArray[np.int64]
_Rows = tuple[_Ints, _Ints, _Ints, npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Contents:
    """Extents that are present, by digest.

    Attributes
    ----------
    keys : ndarray of uint64, shape (n,)
        The first 8 bytes of each digest, ascending.
    numbers, offsets, sizes : ndarray of int64, shape (n,)
    digests : ndarray of uint8, shape (n, DIGEST_BYTES)
    """

    keys: npt.NDArray[np.uint64]
    numbers: _Ints
    offsets: _Ints
    sizes: _Ints
    digests: npt.NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return _ROW_BYTES * len(self.keys)

    def find(self, extents: Sequence[Extent]) -> list[Extent | None]:
        """Return, for each extent of another version, one of this one that has the same bytes."""
        wanted = np.frombuffer(b"".join(extent.digest for extent in extents), np.uint8)
        wanted = wanted.reshape(len(extents), DIGEST_BYTES)
        at = np.searchsorted(self.keys, _keys(wanted))
        # two digests with the same first half: one of them is not found, and fetched
        inside = np.flatnonzero(at < len(self.keys))
        found: list[Extent | None] = [None] * len(extents)
        for n in inside[np.all(self.digests[at[inside]] == wanted[inside], axis=1)].tolist():
            row, extent = int(at[n]), extents[n]
            if self.sizes[row] == extent.size:
                found[n] = Extent(int(self.numbers[row]), int(self.offsets[row]), extent.size, extent.digest)
        return found


def contents_of(index: Index, version: Version) -> Contents:
    """Return the first `MAX_COMPARED` extents that are present of a version. This blocks.

    Raises
    ------
    OSError, sqlite3.Error
        If the disk cannot be read.
    """
    numbers = np.empty(0, np.int64) if version.mirror is None else version.mirror.numbers()[:MAX_COMPARED]
    rows = [np.concatenate(columns) for columns in zip(*_rows(index, version, numbers), strict=True)]
    numbers, offsets, sizes, digests = rows
    order = np.argsort(keys := _keys(digests), kind="stable")
    return Contents(keys[order], numbers[order], offsets[order], sizes[order], digests[order])


def _rows(index: Index, version: Version, numbers: _Ints) -> Iterator[_Rows]:
    """Yield numbers, offsets, sizes and digests of extents, those of one page at a time."""
    head, pages = stored_manifest(index, version.id, numbers)
    fixed = [extent for extent in head.fixed if extent.number in numbers[:FIXED_SLOTS]] if head else []
    yield (
        np.array([extent.number for extent in fixed], np.int64),
        np.array([extent.offset for extent in fixed], np.int64),
        np.array([extent.size for extent in fixed], np.int64),
        np.frombuffer(b"".join(extent.digest for extent in fixed), np.uint8).reshape(-1, DIGEST_BYTES),
    )
    for page in pages:
        begin, sizes = first_slot(page), slot_sizes(page)
        first, stop = np.searchsorted(numbers, [begin, begin + len(sizes)]).tolist()
        slots = numbers[first:stop] - begin
        slots = slots[sizes[slots] > 0]
        yield begin + slots, slot_offsets(page)[slots], sizes[slots], slot_digests(page)[slots]


def _keys(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view("<u8").ravel()
