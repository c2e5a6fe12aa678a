"""What every `Source` promises, as a test class that others subclass.

A subclass gives the fixtures ``source`` (the one under test) and ``published`` (what it should serve)::

    class TestLocalSource(SourceContract):
        @pytest.fixture
        def published(self, tmp_path): ...

        @pytest.fixture
        async def source(self, published): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from caterva2.errors import Changed, NotFound
from caterva2.model.extents import Extent, digest
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath
from caterva2.source.protocol import Source

__all__ = ["SourceContract", "all_extents", "read_all"]

Published = Mapping[DatasetPath, bytes]
"""The bytes of each dataset published."""


async def all_extents(source: Source, head: Head) -> list[Extent]:
    """Return all extents of a version, by offset."""
    extents = list(head.fixed)
    for page in await source.pages(head, range(head.npages)):
        extents += page.extents()
    return sorted(extents, key=lambda extent: extent.offset)


async def read_all(source: Source, path: DatasetPath) -> bytes:
    """Return the bytes of the current version of a dataset, read extent by extent."""
    head = await source.head(path)
    return b"".join(await source.read(head, await all_extents(source, head)))


class SourceContract:
    """Tests of a source; see the module."""

    async def test_head_is_of_the_dataset(self, source: Source, published: Published) -> None:
        """The head names the dataset, its size and its version, and is found by that."""
        for path, data in published.items():
            head = await source.head(path)
            assert (head.path, head.size) == (path, len(data))
            assert len(head.etag) == 32
            assert (await source.head(path, head.etag)).encode() == head.encode()

    async def test_unknown_dataset(self, source: Source, published: Published) -> None:
        """`NotFound` for a name that is not published."""
        root = next(iter(published)).root
        with pytest.raises(NotFound):
            await source.head(DatasetPath(root, "no such dataset"))

    async def test_version_that_never_was(self, source: Source, published: Published) -> None:
        """`Changed`, with both etags, for another version than the current."""
        path = next(iter(published))
        with pytest.raises(Changed) as caught:
            await source.head(path, "0" * 32)
        assert caught.value.wanted_etag == "0" * 32
        assert caught.value.current_etag == (await source.head(path)).etag

    async def test_pages_come_in_the_order_asked_for(self, source: Source, published: Published) -> None:
        """Pages in the order asked for, also twice."""
        for path in published:
            head = await source.head(path)
            numbers = [*reversed(range(head.npages)), *range(head.npages)]
            assert [page.number for page in await source.pages(head, numbers)] == numbers

    async def test_no_such_page(self, source: Source, published: Published) -> None:
        """`IndexError` for a page that there is not."""
        head = await source.head(next(iter(published)))
        for numbers in ([head.npages], [-1]):
            with pytest.raises(IndexError):
                await source.pages(head, numbers)

    async def test_extents_are_the_file(self, source: Source, published: Published) -> None:
        """Extents match their digests; side by side they are the file."""
        for path, data in published.items():
            head = await source.head(path)
            extents = await all_extents(source, head)
            pieces = await source.read(head, extents)
            assert [len(piece) for piece in pieces] == [extent.size for extent in extents]
            assert [digest(piece) for piece in pieces] == [extent.digest for extent in extents]
            assert b"".join(pieces) == data, path

    async def test_extents_come_in_the_order_asked_for(self, source: Source, published: Published) -> None:
        """Extents in the order asked for, also twice."""
        for path, data in published.items():
            head = await source.head(path)
            extents = (await all_extents(source, head))[::3]
            asked = [*reversed(extents), *extents]
            pieces = await source.read(head, asked)
            assert pieces == [data[extent.offset : extent.stop] for extent in asked]

    async def test_reading_nothing(self, source: Source, published: Published) -> None:
        """Nothing asked for, nothing given."""
        head = await source.head(next(iter(published)))
        assert await source.read(head, []) == []
        assert await source.pages(head, []) == []
        assert [piece async for piece in source.stream(head, 0, 0)] == []

    async def test_streams_are_slices_of_the_file(self, source: Source, published: Published) -> None:
        """A stream is the slice of the file, whole or at odd places."""
        for path, data in published.items():
            head = await source.head(path)
            middle, size = len(data) // 2, len(data)
            spans = [(0, size), (0, min(1, size)), (middle, size), (size // 3, middle), (size, size)]
            for start, stop in spans:
                pieces = [piece async for piece in source.stream(head, start, stop)]
                assert b"".join(pieces) == data[start:stop], (path, start, stop)

    async def test_readers_at_the_same_time(self, source: Source, published: Published) -> None:
        """Readers do not disturb each other."""

        async def reader(path: DatasetPath) -> bytes:
            head = await source.head(path)
            return b"".join(await source.read(head, await all_extents(source, head)))

        paths = [path for path in published for _ in range(8)]
        assert await asyncio.gather(*map(reader, paths)) == [published[path] for path in paths]

    async def test_a_stream_can_be_left(self, source: Source, published: Published) -> None:
        """A stream can be closed early, and the source goes on."""
        path, data = max(published.items(), key=lambda item: len(item[1]))
        head = await source.head(path)
        stream = source.stream(head, 0, head.size)
        first = await anext(aiter(stream))
        assert data.startswith(first)
        await stream.aclose()  # type: ignore[attr-defined] # sources' streams are async generators
        (again,) = await source.read(head, (await all_extents(source, head))[:1])
        assert data.startswith(again)
