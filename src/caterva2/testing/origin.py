"""A publisher in memory: a `Source` over byte strings that can be replaced, held back and counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from caterva2.errors import Changed, NotFound
from caterva2.model.extents import (
    DIGEST_BYTES,
    FILE_EXTENT_BYTES,
    ChunkKind,
    Extent,
    digest,
    page_starts,
)
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath, kind_of
from caterva2.model.root import Entry

__all__ = ["MemoryOrigin"]


@dataclass
class MemoryOrigin:
    """Publishes byte strings; those of names of Blosc2 files are described as frames.

    Attributes
    ----------
    data : dict
        The bytes of each dataset, by path.
    reads : Counter
        How often each extent was read, by ``(path, etag, extent number)``.
    calls : Counter
        How often each method was called.
    bytes_read : int
        Bytes that `read` gave.
    gate : asyncio.Event
        `read` waits until it is set.
    failures : list of Exception
        `read` raises them, first the first.
    """

    data: dict[DatasetPath, bytes] = field(default_factory=dict)
    reads: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[Exception] = field(default_factory=list)
    _heads: dict[DatasetPath, Head] = field(default_factory=dict)
    _pages: dict[tuple[str, int], Page] = field(default_factory=dict)
    _generation: int = 0

    def __post_init__(self) -> None:
        self.gate.set()
        for path, data in list(self.data.items()):
            self.publish(path, data)

    def publish(self, path: DatasetPath, data: bytes) -> Head:
        """Publish bytes as the new version of a dataset."""
        self._generation += 1
        etag = digest(b"%s %d" % (str(path).encode(), self._generation)).hex()
        self.data[path] = data
        head = replace(self._describe(path, data), etag=etag, generation=self._generation)
        self._heads[path] = head
        return head

    def withdraw(self, path: DatasetPath) -> None:
        """Publish a dataset no more."""
        del self.data[path], self._heads[path]

    def entry(self, path: DatasetPath) -> Entry:
        """Return what a catalogue would say of a dataset.

        Raises
        ------
        NotFound
        """
        head = self._head(path)
        return Entry(head.etag, head.generation, head.size, head.kind, head.mtime_ns / 1e9, head.shape)

    # -- a source --------------------------------------------------------------------------------

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version; see `Source.head`."""
        self.calls["head"] += 1
        head = self._head(path)
        if etag is not None and etag != head.etag:
            raise Changed(str(path), etag, head.etag)
        return head

    async def pages(
        self,
        head: Head,
        numbers: Sequence[int],
        known: Mapping[int, Page] | None = None,  # noqa: ARG002  # nothing is moved
    ) -> list[Page]:
        """Return pages of a version; see `Source.pages`."""
        self.calls["pages"] += 1
        self._check(head)
        if numbers and not 0 <= min(numbers) <= max(numbers) < head.npages:
            raise IndexError(f"no such page of {head.path}: {list(numbers)}")
        return [self._page(head, number) for number in numbers]

    async def read(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of extents; see `Source.read`."""
        self.calls["read"] += 1
        self.reads.update((str(head.path), head.etag, extent.number) for extent in extents)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self._check(head)
        data = self.data[head.path]
        self.bytes_read += sum(extent.size for extent in extents)
        return [data[extent.offset : extent.stop] for extent in extents]

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Do nothing: all is here."""

    async def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield bytes of a version; see `Source.stream`."""
        self.calls["stream"] += 1
        for first in range(start, stop, FILE_EXTENT_BYTES):
            self._check(head)
            yield self.data[head.path][first : min(stop, first + FILE_EXTENT_BYTES)]

    # -- manifests -------------------------------------------------------------------------------

    def _head(self, path: DatasetPath) -> Head:
        try:
            return self._heads[path]
        except KeyError:
            raise NotFound(str(path)) from None

    def _check(self, head: Head) -> None:
        current = self._head(head.path).etag
        if current != head.etag:
            raise Changed(str(head.path), head.etag, current)

    def _describe(self, path: DatasetPath, data: bytes) -> Head:
        kind = kind_of(path.name)
        if kind != "file":
            from caterva2.frame.inspect import inspect

            return inspect(_reader(data), path=path, kind=kind, size=len(data), mtime_ns=1)
        nchunks = -(-len(data) // FILE_EXTENT_BYTES)
        starts = page_starts(_chunk_sizes(len(data)))
        return Head(path, "", 0, "file", len(data), 1, b"", (), nchunks, 2, starts, {"size": len(data)})

    def _page(self, head: Head, number: int) -> Page:
        page = self._pages.get((head.etag, number))
        if page is None:
            data = self.data[head.path]
            if head.kind == "file":
                page = _file_page(head, data, number)
            else:
                from caterva2.frame.pages import make_page

                page = make_page(_reader(data), head, number)
            self._pages[head.etag, number] = page
        return page


def _reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


def _chunk_sizes(size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    offsets = np.arange(0, size, FILE_EXTENT_BYTES, dtype=np.int64)
    return np.minimum(offsets + FILE_EXTENT_BYTES, size) - offsets


def _file_page(head: Head, data: bytes, number: int) -> Page:
    chunks = head.page_chunks(number)
    count = len(chunks)
    sizes = _chunk_sizes(head.size)[chunks.start : chunks.stop]
    offsets = np.arange(chunks.start, chunks.stop, dtype=np.int64) * FILE_EXTENT_BYTES
    digests = [digest(data[o : o + s]) for o, s in zip(offsets.tolist(), sizes.tolist(), strict=True)]
    return Page(
        number=number,
        first=chunks.start,
        kinds=np.full(count, ChunkKind.WHOLE, np.uint8),
        offsets=offsets,
        sizes=sizes,
        slacks=np.zeros(count, np.int64),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(count, DIGEST_BYTES),
        slack_digests=np.zeros((count, DIGEST_BYTES), np.uint8),
        preambles=np.zeros(count, np.int32),
        block_starts=np.empty((0, 0), np.int32),
        block_digests=np.empty((0, 0, DIGEST_BYTES), np.uint8),
        slots_per_chunk=2,
    )
