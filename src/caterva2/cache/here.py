"""What is here, as a `Source` of its own: who reads through it waits for nobody else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from caterva2.cache.batches import between, joined
from caterva2.cache.layout import Layout
from caterva2.cache.store import Store
from caterva2.cache.version import Version
from caterva2.errors import Changed, NotCached
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry

__all__ = ["Here"]

BATCH_BYTES = 4 * 1024 * 1024
"""So much is looked at, and read, at a time."""


T = TypeVar("T")


class Here:
    """The versions of a store; what is not there is `NotCached`. Belongs to one event loop.

    Parameters
    ----------
    store : Store
    current : callable
        Returns the current version of a dataset from memory; raises `NotFound`.
    fetch_index_later : callable
        Is told of a version of which not all that is wanted is here: perhaps its index alone is missing,
        which says what is at which offset.
    """

    def __init__(
        self,
        store: Store,
        current: Callable[[DatasetPath], Entry],
        fetch_index_later: Callable[[Head, Version], None],
    ) -> None:
        self._store = store
        self._current = current
        self._fetch_index_later = fetch_index_later
        self._layout = Layout(self)

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version; see `Source.head`.

        Raises
        ------
        NotFound, Changed, NotCached
        """
        current = self._current(path).etag
        wanted = current if etag is None else etag
        version = self._store.find(path, wanted)
        if version is not None and not version.doomed and (head := self._store.head(version)):
            return head
        if wanted != current:
            raise Changed(str(path), wanted, current)
        raise _not_here(path)

    async def pages(
        self,
        head: Head,
        numbers: Sequence[int],
        known: Mapping[int, Page] | None = None,  # noqa: ARG002  # nothing is moved
    ) -> list[Page]:
        """Return pages of a version's manifest; see `Source.pages`.

        Raises
        ------
        NotCached, IndexError
        """
        head.check_pages(numbers)
        version = self._version(head)
        with self._store.using(version):
            found = [self._store.page(version, head, number) for number in numbers]
        return _all_of(head.path, found)

    async def read(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of extents, checked since the start or now; see `Source.read`.

        Raises
        ------
        NotCached
        """
        version = self._version(head)
        with self._store.using(version):
            pieces = await self._store.read(version, extents)
        found = _all_of(head.path, pieces)
        self._store.stats.hits += len(found)
        return found

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Do nothing: nobody is asked."""

    async def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield bytes of a version; see `Source.stream`.

        Raises
        ------
        NotCached
            Also after some pieces, unless `require` was called before.
        Corrupt
        """
        batches = self._layout.batches(head, start, stop, BATCH_BYTES)
        with self._store.using(self._version(head), whole=True):
            async with aclosing(batches):
                async for batch in batches:
                    loaded = list(zip(batch, await self.read(head, batch), strict=True))
                    for piece in joined(between(loaded, start, stop)):
                        start += len(piece)
                        yield piece

    async def require(self, head: Head, start: int, stop: int) -> None:
        """Check that all bytes of a range are here; those that were not read since the start are hashed.

        Raises
        ------
        NotCached
            Also if the index is not here; it is when this is tried again later.
        Corrupt
        """
        version = self._version(head)
        try:
            await self._require(head, version, start, stop)
        except NotCached:
            self._fetch_index_later(head, version)
            raise

    async def _require(self, head: Head, version: Version, start: int, stop: int) -> None:
        batches = self._layout.batches(head, start, stop, BATCH_BYTES)
        with self._store.holding(version, whole=True):
            async with aclosing(batches):
                async for batch in batches:
                    doubtful = self._store.unverified(version, batch)
                    if doubtful:
                        _all_of(head.path, await self._store.read(version, doubtful))

    def _version(self, head: Head) -> Version:
        version = self._store.find(head.path, head.etag)
        if version is None:
            raise _not_here(head.path)
        return version


def _not_here(path: DatasetPath) -> NotCached:
    return NotCached(f"not all that is wanted of {path} is cached here, and nobody else was to be asked")


def _all_of(path: DatasetPath, found: Sequence[T | None]) -> list[T]:
    here = [item for item in found if item is not None]
    if len(here) < len(found):
        raise _not_here(path)
    return here
