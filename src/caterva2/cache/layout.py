"""Which extents hold a byte range of a version, in batches, in the order of the file."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caterva2.cache.lru import BytesLru
from caterva2.errors import Corrupt
from caterva2.model.extents import FILE_EXTENT_BYTES, Extent, Fixed
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.source.protocol import Source

__all__ = ["PAGES", "Layout"]

ORDERS_BYTES = 32 * 1024 * 1024

PAGES = 4
"""Pages of the manifest asked for together: who makes them reads all that they describe."""


@dataclass(frozen=True)
class _Order:
    """The chunks of a version that have bytes, by offset.

    Attributes
    ----------
    nchunks : ndarray of int64, shape (n,)
    offsets : ndarray of int64, shape (n,)
        Ascending.
    """

    nchunks: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]


class Layout:
    """Finds extents by their place in the file.

    Parameters
    ----------
    source : Source
        Gives pages and the index of frames.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._orders: BytesLru[tuple[str, str], _Order] = BytesLru(ORDERS_BYTES)

    async def batches(
        self, head: Head, start: int, stop: int, batch_bytes: int
    ) -> AsyncGenerator[list[Extent], None]:
        """Yield the extents that overlap ``start <= offset < stop``, ascending by offset.

        Each batch has about `batch_bytes`; together they cover the range without a hole.

        Raises
        ------
        Corrupt
            If the manifest leaves bytes out.
        NotFound, Changed, Unavailable, IntegrityError
            As `Source.read`.
        """
        batch: list[Extent] = []
        nbytes = 0
        reached = start
        async for extent in self._extents(head, start, stop):
            if extent.offset > reached:
                break
            if extent.stop <= reached:
                continue
            batch.append(extent)
            nbytes += extent.size
            reached = extent.stop
            if nbytes >= batch_bytes:
                yield batch
                batch, nbytes = [], 0
        if batch:
            yield batch
        if reached < stop:
            raise Corrupt(f"the manifest of {head.path} does not say what is at byte {reached}")

    async def _extents(self, head: Head, start: int, stop: int) -> AsyncIterator[Extent]:
        fixed = _overlapping(head.fixed, start, stop)
        following = next(fixed, None)
        nchunks, offsets = await self._chunks(head, start, stop)
        pages = _Pages(self._source, head, nchunks)
        for nchunk, offset in zip(nchunks.tolist(), offsets.tolist(), strict=True):
            while following is not None and following.offset < offset:
                yield following
                following = next(fixed, None)
            for extent in (await pages.of(nchunk)).chunk_extents(nchunk):
                if extent.offset < stop and extent.stop > start:
                    yield extent
        while following is not None:
            yield following
            following = next(fixed, None)

    async def _chunks(
        self, head: Head, start: int, stop: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the chunks that may overlap a range, and their offsets, by offset."""
        index = head.fixed_extent(Fixed.INDEX)
        if index is None:  # no frame: pages of one size
            first = min(start // FILE_EXTENT_BYTES, head.nchunks)
            last = min(-(-stop // FILE_EXTENT_BYTES), head.nchunks)
            nchunks = np.arange(first, last, dtype=np.int64)
            return nchunks, nchunks * FILE_EXTENT_BYTES
        order = await self._order(head, index)
        # a chunk, with what is dead behind it, ends before the next one begins
        first = max(int(np.searchsorted(order.offsets, start, side="right")) - 1, 0)
        last = int(np.searchsorted(order.offsets, stop, side="left"))
        return order.nchunks[first:last], order.offsets[first:last]

    async def _order(self, head: Head, index: Extent) -> _Order:
        key = (str(head.path), head.etag)
        order = self._orders.get(key)
        if order is None:
            (data,) = await self._source.read(head, [index])
            order = await asyncio.to_thread(_ordered, head, data)
            self._orders.put(key, order, order.nchunks.nbytes + order.offsets.nbytes)
        return order


class _Pages:
    """The pages of some chunks of a version: the first one alone, further ones a few at a time.

    Parameters
    ----------
    source : Source
    head : Head
    nchunks : ndarray of int64, shape (n,)
        In the order in which they are asked for.
    """

    def __init__(self, source: Source, head: Head, nchunks: npt.NDArray[np.int64]) -> None:
        self._source = source
        self._head = head
        self._wanted = head.pages_of(nchunks)
        self._page: Page | None = None
        self._pages: dict[int, Page] = {}

    async def of(self, nchunk: int) -> Page:
        """Return the page that describes a chunk."""
        page = self._page
        if page is None or not page.first <= nchunk < page.first + len(page):
            number = self._head.page_of(nchunk)
            if number not in self._pages:
                count = PAGES if self._pages else 1
                at = bisect_left(self._wanted, number)
                found = await self._source.pages(self._head, self._wanted[at : at + count])
                self._pages = {page.number: page for page in found}
            page = self._page = self._pages[number]
        return page


def _ordered(head: Head, index: bytes) -> _Order:
    from caterva2.frame.pages import index_offsets

    offsets = index_offsets(head, index)
    nchunks = np.argsort(offsets, kind="stable")
    nchunks = nchunks[int(np.count_nonzero(offsets < 0)) :]
    return _Order(nchunks, offsets[nchunks])


def _overlapping(extents: tuple[Extent, ...], start: int, stop: int) -> Iterator[Extent]:
    found = [extent for extent in extents if extent.offset < stop and extent.stop > start]
    return iter(sorted(found, key=lambda extent: extent.offset))
