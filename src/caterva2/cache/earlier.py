"""What a new version of a dataset has in common with earlier ones that are here, and needs not be moved.

Pages of the manifest are compared by what they say, extents by digest; no offset, no size and no time is ever
taken as a sign that bytes are the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from caterva2.cache.contents import Contents
from caterva2.cache.flight import Flights
from caterva2.cache.lru import BytesLru
from caterva2.cache.store import Store
from caterva2.cache.version import Version
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page

__all__ = ["CONTENTS_BYTES", "Earlier"]

CONTENTS_BYTES = 32 * 1024 * 1024
"""Most that is held in memory of what versions have by digest, in bytes."""


class Earlier:
    """Takes over from earlier versions what later ones have too. Belongs to one event loop.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._contents: BytesLru[Hashable, Contents] = BytesLru(CONTENTS_BYTES)
        self._looking: Flights[Hashable, Contents | None] = Flights()

    async def close(self) -> None:
        """Look for nothing any more."""
        await self._looking.close()

    @property
    def nbytes(self) -> int:
        """What is held in memory."""
        return self._contents.nbytes

    def versions(self, version: Version) -> list[Version]:
        """Return the other versions of a dataset of which something is here, the latest first."""
        others = [
            other
            for other in self._store.all_of(version.path)
            if other is not version and other.cached_bytes and not other.doomed
        ]
        return sorted(others, key=lambda other: other.id, reverse=True)

    def pages(self, version: Version, head: Head, numbers: Sequence[int]) -> dict[int, Page]:
        """Return pages of earlier versions that are about the same chunks as pages of a version.

        Parameters
        ----------
        version : Version
        head : Head
            Of that version.
        numbers : sequence of int
            Of its pages.
        """
        known: dict[int, Page] = {}
        for other in self.versions(version):
            if other_head := self._store.head(other):
                for number in numbers:
                    if number not in known and (page := self._page(other, other_head, head, number)):
                        known[number] = page
        return known

    def _page(self, other: Version, other_head: Head, head: Head, number: int) -> Page | None:
        chunks = head.page_chunks(number)
        if chunks.start >= other_head.nchunks or head.slots_per_chunk != other_head.slots_per_chunk:
            return None
        counterpart = other_head.page_of(chunks.start)
        if other_head.page_chunks(counterpart) != chunks:
            return None
        return self._store.page(other, other_head, counterpart)

    async def take(self, version: Version, extents: Sequence[Extent]) -> dict[int, bytes]:
        """Return the bytes of those extents that earlier versions have, by number; the version keeps them."""
        taken: dict[int, bytes] = {}
        for other in self.versions(version):
            left = [extent for extent in extents if extent.number not in taken]
            contents = await self._contents_of(other)
            if not left or contents is None:
                continue
            with_origin = zip(left, contents.find(left), strict=True)
            pairs = [(extent, origin) for extent, origin in with_origin if origin is not None]
            if pairs:
                taken |= await self._store.take_over(version, other, pairs)
        return taken

    async def _contents_of(self, version: Version) -> Contents | None:
        contents = self._contents.get(version.entry)
        if contents is not None:
            return contents

        async def look(keys: list[Hashable]) -> dict[Hashable, Contents | None]:
            found = await self._store.contents(version)
            if found is not None:
                self._contents.put(version.entry, found, found.nbytes)
            return dict.fromkeys(keys, found)

        return (await self._looking.get([version.entry], look))[version.entry]
