import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2.frame.decode import cell_extents, decode_cell, dtype_of, grid_of
from caterva2.model.extents import Extent
from caterva2.model.page import Page
from caterva2.model.path import parse_path
from caterva2.model.selection import select
from caterva2.testing.memory import FileSource


class Stored:
    """A frame as a file, read as the system reads it: head, pages, extents, cells."""

    def __init__(self, file: Path, name: str) -> None:
        self.source = FileSource(file, parse_path(f"r/{name}"))
        self.head = asyncio.run(self.source.head(parse_path(f"r/{name}")))

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
            parts = [self.source.pread(e.offset, e.size) for e in cell_extents(self.head, page, cell)]
            decode_cell(self.head, page, cell, parts, out)
        out = out[(*(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes), ...)]
        return out.reshape(selection.shape)

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
