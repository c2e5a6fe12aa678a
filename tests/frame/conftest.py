import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2.errors import Unsupported
from caterva2.frame.decode import block_extents, decode_stored, place_cell
from caterva2.frame.geometry import dtype_of, geometry_of, grid_of
from caterva2.frame.sent import (
    can_be_sent,
    compact_record,
    decode_record,
    record,
    record_extents,
    record_size,
)
from caterva2.model.extents import Extent
from caterva2.model.grid import Cell
from caterva2.model.page import Page
from caterva2.model.path import parse_path
from caterva2.model.selection import Selection, select
from caterva2.testing.memory import FileSource


class Stored:
    """A frame as a file, read as the system reads it: head, pages, extents, cells."""

    def __init__(self, file: Path, name: str) -> None:
        self.source = FileSource(file, parse_path(f"r/{name}"))
        self.head = asyncio.run(self.source.head(parse_path(f"r/{name}")))

    @property
    def sent(self) -> "Sent":
        """The same, read as a client does that decodes itself."""
        return Sent(self)

    def pages(self) -> list[Page]:
        return asyncio.run(self.source.pages(self.head, range(self.head.npages)))

    def extents(self) -> list[Extent]:
        return [*self.head.fixed, *(extent for page in self.pages() for extent in page.extents())]

    def __getitem__(self, key: Any) -> np.ndarray:
        grid = grid_of(self.head)
        selection = select(key, grid.shape)
        out = np.empty(selection.counts, dtype_of(self.head))
        pages = self.pages()
        for cell in grid.cells(selection):
            page = pages[self.head.page_of(cell.nchunk)]
            extents = block_extents(self.head, page, cell.nchunk, cell.blocks)
            parts = [self.source.pread(extent.offset, extent.size) for extent in extents]
            place_cell(self.head, cell, decode_stored(self.head, page, cell.nchunk, cell.blocks, parts), out)
        return arranged(out, selection)

    def assert_covered(self) -> None:
        """All extents together are the file, byte for byte."""
        at = 0
        extents = sorted(self.extents(), key=lambda extent: extent.offset)
        for extent in extents:
            assert extent.offset == at
            assert extent.size > 0
            at = extent.stop
        assert at == self.head.size
        assert len({extent.number for extent in extents}) == len(extents)
        assert all(0 <= extent.number < self.head.nextents for extent in extents)


class Sent:
    """Reads a stored array by its records, where they can be had; as it is stored otherwise."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored

    def records(self, key: Any) -> Iterator[tuple[Cell, bytes]]:
        head = self.stored.head
        grid, pages = grid_of(head), self.stored.pages()
        for cell in grid.pieces(select(key, grid.shape), geometry_of(head).blocksize):
            page = pages[head.page_of(cell.nchunk)]
            parts = [self.stored.source.pread(e.offset, e.size) for e in record_extents(head, page, cell)]
            data = b"".join(record(head, page, cell, parts))
            assert len(data) == record_size(head, page, cell)
            yield cell, data

    def __getitem__(self, key: Any) -> np.ndarray:
        head = self.stored.head
        if not can_be_sent(head):
            return self.stored[key]
        geometry = geometry_of(head)
        selection = select(key, geometry.grid.shape)
        out, again = (np.empty(selection.counts, geometry.dtype) for _ in range(2))
        scratch = np.full(geometry.blocksize, 7, np.uint8)  # enough for some, too small for others
        for cell, data in self.records(key):
            compact = compact_record(data, cell.blocks, geometry.blocksize)
            assert len(compact) <= len(data)
            try:
                decode_record(memoryview(data), geometry.grid, cell, out, scratch)
                decode_record(memoryview(compact), geometry.grid, cell, again, scratch)
            except Unsupported:
                return self.stored[key]
        assert out.tobytes() == again.tobytes()
        return arranged(out, selection)


def arranged(out: np.ndarray, selection: Selection) -> np.ndarray:
    out = out[(*(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes), ...)]
    return out.reshape(selection.shape)


@pytest.fixture(scope="session")
def frame_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames")


@pytest.fixture
def store(frame_dir: Path) -> Callable[..., Stored]:
    def _store(thing: Any, name: str = "x.b2nd") -> Stored:
        file = frame_dir / name
        file.write_bytes(thing if isinstance(thing, bytes) else thing.to_cframe())
        return Stored(file, name)

    return _store
