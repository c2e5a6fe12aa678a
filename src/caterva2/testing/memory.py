"""The simplest `Source`: one local file, described when it is opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from caterva2.errors import Changed, Corrupt, NotFound
from caterva2.frame.inspect import inspect
from caterva2.frame.pages import make_page
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath, kind_of

__all__ = ["FileSource"]


class FileSource:
    """A `Source` over one file that nobody changes, read into memory.

    Parameters
    ----------
    path : Path
        The file.
    dataset : DatasetPath
        What it is called.

    Attributes
    ----------
    extents_read, bytes_read : int
        What `read` was asked for so far.
    pages_made : int

    Raises
    ------
    Corrupt, Unsupported
        If it is not what its name promises.
    """

    def __init__(self, path: Path, dataset: DatasetPath) -> None:
        self._data = path.read_bytes()
        self._dataset = dataset
        self._pages: dict[int, Page] = {}
        self.extents_read = 0
        self.bytes_read = 0
        mtime_ns = path.stat().st_mtime_ns
        head = inspect(
            self.pread, path=dataset, kind=kind_of(dataset.name), size=len(self._data), mtime_ns=mtime_ns
        )
        self._head = replace(head, etag=blake3(self._data).hexdigest(16), generation=1)

    def pread(self, offset: int, size: int) -> bytes:
        """Return bytes of the file.

        Raises
        ------
        Corrupt
            If they are not all there.
        """
        data = self._data[offset : offset + size]
        if offset < 0 or len(data) != size:
            raise Corrupt(f"{self._dataset} is cut")
        return data

    @property
    def pages_made(self) -> int:
        """How many pages were asked for."""
        return len(self._pages)

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head; see `Source.head`."""
        if path != self._dataset:
            raise NotFound(str(path))
        if etag not in (None, self._head.etag):
            raise Changed(str(path), etag, self._head.etag)
        return self._head

    async def pages(
        self,
        head: Head,
        numbers: Sequence[int],
        known: Mapping[int, Page] | None = None,  # noqa: ARG002  # nothing is moved
    ) -> list[Page]:
        """Return pages; see `Source.pages`."""
        for number in numbers:
            if number not in self._pages:
                self._pages[number] = make_page(self.pread, head, number)
        return [self._pages[number] for number in numbers]

    async def read(
        self,
        head: Head,  # noqa: ARG002  # there is one version only
        extents: Sequence[Extent],
    ) -> list[bytes]:
        """Return extents; see `Source.read`."""
        self.extents_read += len(extents)
        self.bytes_read += sum(extent.size for extent in extents)
        return [self.pread(extent.offset, extent.size) for extent in extents]

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Do nothing: all is here."""

    async def stream(
        self,
        head: Head,  # noqa: ARG002  # there is one version only
        start: int,
        stop: int,
    ) -> AsyncIterator[bytes]:
        """Yield bytes of the file; see `Source.stream`."""
        for at in range(start, stop, 1 << 20):
            yield self.pread(at, min(1 << 20, stop - at))
