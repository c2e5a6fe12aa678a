"""Which extents of a new version stand where extents stood that were here of an earlier one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from caterva2.cache.layout import PAGES
from caterva2.model.extents import FIXED_SLOTS, ChunkKind, Extent, Fixed
from caterva2.model.grid import ChunkGrid
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.source.protocol import Source

__all__ = ["counterparts", "renewed"]

_Ints = npt.NDArray[np.int64]


async def renewed(
    source: Source, head: Head, earlier: Head, numbers: _Ints
) -> AsyncGenerator[Sequence[Extent], None]:
    """Yield the extents of a version that stand for those that were here of an earlier one.

    The same chunks, and the same blocks of them; all blocks of a chunk that was one extent before. The fixed
    parts always. Nothing else of an array that is cut into other chunks than before.

    Parameters
    ----------
    source : Source
        Gives the pages.
    head, earlier : Head
    numbers : ndarray of int64, shape (n,)
        Extents of the earlier version, ascending.

    Raises
    ------
    NotFound, Changed, Unavailable
        As `Source.pages`.
    """
    yield [e for e in head.fixed if e.number != Fixed.GAP or Fixed.GAP in numbers[:FIXED_SLOTS]]
    slots = numbers[numbers >= FIXED_SLOTS] - FIXED_SLOTS
    nchunks = counterparts(earlier, head, slots // earlier.slots_per_chunk)
    order = np.argsort(nchunks, kind="stable")[np.count_nonzero(nchunks < 0) :]
    nchunks, parts = nchunks[order], (slots % earlier.slots_per_chunk)[order]
    same_blocks = head.slots_per_chunk == earlier.slots_per_chunk
    wanted = head.pages_of(nchunks)
    for start in range(0, len(wanted), PAGES):
        for page in await source.pages(head, wanted[start : start + PAGES]):
            first, stop = np.searchsorted(nchunks, [page.first, page.first + len(page)])
            by_chunk: dict[int, set[int]] = {}
            for nchunk, part in zip(nchunks[first:stop].tolist(), parts[first:stop].tolist(), strict=True):
                by_chunk.setdefault(nchunk, set()).add(part)
            yield list(_of_page(page, by_chunk, same_blocks=same_blocks))


def _of_page(page: Page, by_chunk: dict[int, set[int]], *, same_blocks: bool) -> Iterator[Extent]:
    for nchunk, parts in by_chunk.items():
        extents = page.chunk_extents(nchunk)
        if same_blocks and page.kind(nchunk) == ChunkKind.BLOCKS and max(parts) >= 2:
            begin = FIXED_SLOTS + nchunk * page.slots_per_chunk
            yield from (e for e in extents if e.number == begin or e.number - begin in parts)
        else:
            yield from extents


def counterparts(earlier: Head, head: Head, nchunks: _Ints) -> _Ints:
    """Return the chunks of a version that stand where chunks of an earlier one stood.

    Parameters
    ----------
    earlier, head : Head
    nchunks : ndarray of int64, shape (n,)
        Of the earlier version.

    Returns
    -------
    ndarray of int64, shape (n,)
        -1 where there is none. An array that has grown or shrunk has other numbers for the same place.
    """
    if head.kind != earlier.kind:
        return np.full(len(nchunks), -1, np.int64)
    if head.kind != "array":
        return np.where(nchunks < head.nchunks, nchunks, -1)
    before, after = _grid(earlier), _grid(head)
    if before.chunks != after.chunks or not before.chunks or not head.nchunks:
        same = before.chunks == after.chunks
        return np.where(same & (nchunks < head.nchunks), nchunks, -1)
    places = np.unravel_index(nchunks, before.chunk_counts)
    inside = np.all([at < n for at, n in zip(places, after.chunk_counts, strict=True)], axis=0)
    numbers = np.ravel_multi_index(places, after.chunk_counts, mode="clip")
    return np.where(inside, numbers, -1).astype(np.int64)


def _grid(head: Head) -> ChunkGrid:
    return ChunkGrid(tuple(head.meta["shape"]), tuple(head.meta["chunks"]), tuple(head.meta["blocks"]))
