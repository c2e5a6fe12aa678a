"""What an open file keeps of what was read: the pages that its subscriber fetches and keeps as well."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

from fsspec.caching import BaseCache, register_cache

from caterva2.model.extents import FILE_EXTENT_BYTES

__all__ = ["PAGE_BYTES", "PageCache"]

PAGE_BYTES = FILE_EXTENT_BYTES
"""Size of a page, in bytes: a subscriber fetches a whole one if any byte of it is read."""

MOST_PAGES = 64
"""Pages that are kept, the last ones that were read."""

MOST_AHEAD = 16
"""Most pages that are read ahead."""


class PageCache(BaseCache):  # type: ignore[misc]  # fsspec ships no types
    """Keeps whole pages. What is read on and on is read ahead, ever further; nothing else is.

    So a subscriber never fetches what nobody asked for, unless a file is read from one end to the other.

    Parameters
    ----------
    blocksize : int
        Size of a page, in bytes.
    fetcher : callable
        Returns bytes ``start <= offset < stop``.
    size : int
        Of the file, in bytes.
    """

    name: ClassVar[str] = "caterva2"

    def __init__(self, blocksize: int, fetcher: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(blocksize, fetcher, size)
        self.nblocks = -(-size // blocksize)
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._next = -1  # where a read would go on
        self._ahead = 0

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start, stop = start or 0, self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        first, last = start // self.blocksize, -(-stop // self.blocksize)
        self._ahead = min(2 * self._ahead + 1, MOST_AHEAD) if start == self._next else 0
        self._next = stop
        pages = self._get(first, last)
        skipped = start - first * self.blocksize
        return b"".join(pages)[skipped : skipped + stop - start]

    def _get(self, first: int, last: int) -> list[bytes]:
        """Return pages, those that are missing by one request for each run of them."""
        found = {page: self._pages[page] for page in range(first, last) if page in self._pages}
        page = first
        while page < last:
            if page in found:
                page += 1
                continue
            end = next((n for n in range(page, last) if n in found), last)
            if end == last:
                end = min(last + self._ahead, self.nblocks)
            found |= self._request(page, end)
            page = end
        for page in found:
            self._pages[page] = found[page]
            self._pages.move_to_end(page)
        while len(self._pages) > MOST_PAGES:
            self._pages.popitem(last=False)
        self.hit_count += 1
        return [found[page] for page in range(first, last)]

    def _request(self, first: int, last: int) -> dict[int, bytes]:
        begin, end = first * self.blocksize, min(last * self.blocksize, self.size)
        data = memoryview(self.fetcher(begin, end))
        self.miss_count += 1
        self.total_requested_bytes += end - begin
        return {
            page: bytes(data[(page - first) * self.blocksize : (page - first + 1) * self.blocksize])
            for page in range(first, last)
        }


register_cache(PageCache, clobber=True)
