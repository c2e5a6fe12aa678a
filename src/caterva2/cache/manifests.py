"""The manifests of the versions that are here: decoded in memory, encoded in the index."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Hashable, Iterator, Sequence

from caterva2.cache.disk import Disk
from caterva2.cache.inventory import Inventory
from caterva2.cache.lru import BytesLru
from caterva2.cache.version import CacheStats, Version
from caterva2.errors import Corrupt
from caterva2.model.manifest import Head
from caterva2.model.page import Page

__all__ = ["MANIFEST_BYTES", "Manifests"]

HEADS_BYTES = 16 * 1024 * 1024
PAGES_BYTES = 48 * 1024 * 1024
"""Decoded manifests held in memory, in bytes; all others are read from the index."""

MANIFEST_BYTES = HEADS_BYTES + PAGES_BYTES

log = logging.getLogger(__name__)


class Manifests:
    """Heads and pages by version.

    Parameters
    ----------
    inventory : Inventory
    disk : Disk
    stats : CacheStats
        Its `damaged` is kept.
    """

    def __init__(self, inventory: Inventory, disk: Disk, stats: CacheStats) -> None:
        self._inventory = inventory
        self._disk = disk
        self._stats = stats
        self._heads: BytesLru[tuple[str, str], Head] = BytesLru(HEADS_BYTES)
        self._pages: BytesLru[tuple[Hashable, int], Page] = BytesLru(PAGES_BYTES)

    @property
    def nbytes(self) -> int:
        """What those in memory take."""
        return self._heads.nbytes + self._pages.nbytes

    def head(self, version: Version) -> Head | None:
        """Return the head of a version; None if it was damaged on disk."""
        head = self._heads.get(version.key)
        index = self._inventory.index
        if head is None and index is not None:
            with self._disk.health.guard(), self._damage_found(version):
                encoded = index.head(version.id)
                if encoded is not None:
                    found = Head.decode(encoded)
                    if (str(found.path), found.etag) != version.key:
                        raise Corrupt(f"it is the head of {found.path}")
                    head = found
                    self._heads.put(version.key, head, len(encoded))
        return head

    @contextlib.contextmanager
    def _damage_found(self, version: Version) -> Iterator[None]:
        try:
            yield
        except Corrupt as error:
            self._stats.damaged += 1
            log.warning("the index has not what was kept of %s, to be fetched again: %s", version.path, error)

    async def add(self, head: Head) -> Version:
        """Keep a head, and return the version of it, made if it is not here."""
        if found := self._inventory.find(head.path, head.etag):
            return found
        encoded = head.encode()
        self._heads.put((str(head.path), head.etag), head, len(encoded))
        return await self._inventory.add(head, encoded)

    def page(self, version: Version, head: Head, number: int) -> Page | None:
        """Return a page of a version; None if it is not here, or was damaged on disk."""
        page = self._pages.get((version.entry, number))
        index = self._inventory.index
        if page is None and version.id and index is not None:
            with self._disk.health.guard(), self._damage_found(version):
                encoded = index.page(version.id, number)
                if encoded is not None:
                    page = Page.decode(encoded, head, number)
                    self._pages.put((version.entry, number), page, len(encoded))
        return page

    async def add_pages(self, version: Version, pages: Sequence[Page]) -> None:
        """Keep pages of a version."""
        encoded = [(page.number, page.encode()) for page in pages]
        for page, (number, blob) in zip(pages, encoded, strict=True):
            self._pages.put((version.entry, number), page, len(blob))
        index = self._inventory.index
        if version.id and index is not None:
            with self._disk.health.guard():
                await self._disk.run(index.add_pages, version.id, encoded)
