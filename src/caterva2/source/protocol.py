"""Where the bytes of versions come from: one contract for local files, other hosts and the cache.

The stored file is the wire format. Whoever holds some bytes of a version at their original offsets can serve
them, so a publisher's directory, a publisher at the other end of a wire and a cache are the same to a reader.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Protocol

from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath

__all__ = ["Source"]


class Source(Protocol):
    """Reads versions of datasets. All methods can be called concurrently."""

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version.

        Parameters
        ----------
        path : DatasetPath
        etag : str, optional
            The version wanted; by default the current one.

        Raises
        ------
        NotFound
            If there is no such dataset.
        Changed
            If the version wanted is not the current one and cannot be served any more.
        Unavailable
            If it cannot be known now.
        """
        ...

    async def pages(
        self, head: Head, numbers: Sequence[int], known: Mapping[int, Page] | None = None
    ) -> list[Page]:
        """Return pages of a version's manifest, in the order asked for.

        Parameters
        ----------
        head : Head
        numbers : sequence of int
        known : mapping of int to Page, optional
            What is known of the same chunks from other versions, by the number of the page asked for: where
            nothing changed, that needs not be moved again.

        Raises
        ------
        NotFound, Changed, Unavailable
            As for `head`.
        IndexError
            If there is no such page.
        """
        ...

    async def read(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of extents of a version, in the order asked for, each exactly its size.

        Raises
        ------
        NotFound, Changed, Unavailable
            As for `head`.
        IntegrityError
            If the bytes do not match their digest and no others could be had.
        Corrupt
            If they do not, and the source is the origin itself.
        """
        ...

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Have extents at hand, if this source can keep them: so that `read` waits for no other host.

        Parameters
        ----------
        head : Head
        groups : async generator of sequences of Extent
            Is left, or never begun, where nothing needs to be done.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError
            As for `read`.
        """
        ...

    def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes ``start <= offset < stop`` of a version's file, in order, in pieces of any size.

        The caller has checked that ``0 <= start <= stop <= head.size``.

        Raises
        ------
        NotFound, Changed, Unavailable, IntegrityError
            As for `read`; possibly after some pieces.
        """
        ...
