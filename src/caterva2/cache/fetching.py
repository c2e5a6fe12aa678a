"""What is missing, fetched from origins: each head, page and extent once, for all who want it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence

from caterva2.cache.earlier import Earlier
from caterva2.cache.flight import Flights
from caterva2.cache.store import Store
from caterva2.cache.version import Version
from caterva2.errors import Changed, IntegrityError, NotFound
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry
from caterva2.source.planner import explained
from caterva2.source.protocol import Source

__all__ = ["Fetching"]

_Key = tuple[Hashable, int]


class Fetching:
    """Fetches what a store lacks, and keeps it there. Belongs to one event loop.

    Parameters
    ----------
    store : Store
    earlier : Earlier
        Gives what did not change since an earlier version.
    current, origin : callable
        As of `caterva2.cache.cached.CachedSource`.
    kept : callable
        Is told of each version of which extents were kept.
    """

    def __init__(
        self,
        store: Store,
        earlier: Earlier,
        current: Callable[[DatasetPath], Entry],
        origin: Callable[[DatasetPath], Source],
        kept: Callable[[Head, Version], None],
    ) -> None:
        self._store = store
        self._earlier = earlier
        self._current = current
        self._origin = origin
        self._kept = kept
        self._heads: Flights[tuple[str, str], Head] = Flights()
        self._pages: Flights[_Key, Page] = Flights()
        self._extents: Flights[_Key, bytes] = Flights()

    async def close(self) -> None:
        """End what is under way."""
        for flights in (self._heads, self._pages, self._extents):
            await flights.close()

    @property
    def in_flight(self) -> int:
        """How many heads, pages and extents are being fetched."""
        return self._heads.in_flight + self._pages.in_flight + self._extents.in_flight

    async def head(self, path: DatasetPath, etag: str) -> Head:
        """Return the head of the version that is current.

        Raises
        ------
        NotFound, Changed, Unavailable
        """

        async def fetch(keys: list[tuple[str, str]]) -> dict[tuple[str, str], Head]:
            head = await self._origin(path).head(path, etag)
            if head.etag != etag:
                raise Changed(str(path), etag, head.etag)
            self.supersede(await self._store.add(head))
            return dict.fromkeys(keys, head)

        key = (str(path), etag)
        return (await self._heads.get([key], fetch))[key]

    async def pages(self, head: Head, version: Version, numbers: Sequence[int]) -> dict[int, Page]:
        """Return pages of a version by their numbers.

        Raises
        ------
        NotFound, Changed, Unavailable
        """

        async def fetch(keys: list[_Key]) -> dict[_Key, Page]:
            with self._store.using(version):
                self.check_current(head)
                wanted = [number for _, number in keys]
                known = self._earlier.pages(version, head, wanted)
                pages = await self._origin(head.path).pages(head, wanted, known)
                await self._store.add_pages(version, pages)
                return dict(zip(keys, pages, strict=True))

        got = await self._pages.get([(version.entry, number) for number in numbers], fetch)
        return {number: page for (_, number), page in got.items()}

    async def extents(self, head: Head, version: Version, extents: Sequence[Extent]) -> dict[int, bytes]:
        """Return the bytes of extents by their numbers.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError
        """
        explanation = explained()
        if explanation is None:
            return await self._fetch_extents(head, version, extents)
        began = time.perf_counter()
        got = await self._fetch_extents(head, version, extents)
        explanation.upstream_s += time.perf_counter() - began
        explanation.upstream_bytes += sum(extent.size for extent in extents)
        return got

    async def _fetch_extents(
        self, head: Head, version: Version, extents: Sequence[Extent]
    ) -> dict[int, bytes]:
        by_number = {extent.number: extent for extent in extents}

        async def fetch(keys: list[_Key]) -> dict[_Key, bytes]:
            with self._store.using(version):
                self.check_current(head)
                wanted = [by_number[number] for _, number in keys]
                pieces = await self._earlier.take(version, wanted)
                missing = [extent for extent in wanted if extent.number not in pieces]
                if missing:
                    got = await self._origin(head.path).read(head, missing)
                    kept = await self._store.write(version, list(zip(missing, got, strict=True)))
                    if kept:
                        self._kept(head, version)
                    pieces |= {extent.number: piece for extent, piece in zip(missing, got, strict=True)}
                return {key: pieces[key[1]] for key in keys}

        def concerns(error: Exception, key: _Key) -> bool:
            return not isinstance(error, IntegrityError) or error.offset == by_number[key[1]].offset

        got = await self._extents.get([(version.entry, number) for number in by_number], fetch, concerns)
        return {number: piece for (_, number), piece in got.items()}

    # -- which version is current ------------------------------------------------------------------

    def supersede(self, version: Version) -> None:
        """Note that a version is the current one, if it is."""
        alone = not version.superseded and len(self._store.all_of(version.path)) == 1
        if not alone and self.is_current(version.path, version.etag):
            self._store.supersede(version)

    def is_current(self, path: DatasetPath, etag: str) -> bool:
        """Return whether a version is the current one."""
        try:
            return self._current(path).etag == etag
        except NotFound:
            return False

    def check_current(self, head: Head) -> None:
        """Raise `Changed` if a version is not the current one, `NotFound` if there is no such dataset."""
        current = self._current(head.path).etag
        if current != head.etag:
            raise Changed(str(head.path), head.etag, current)
