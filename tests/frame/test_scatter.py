import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2.frame import scatter as module
from caterva2.frame.scatter import scatter
from caterva2.model.grid import ChunkGrid
from caterva2.model.selection import select


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 15), max_size=3)))
    blocks = tuple(draw(st.integers(1, n)) for n in shape)
    key = tuple(
        slice(draw(st.integers(0, n - 1)), draw(st.integers(0, n)), draw(st.integers(1, 6))) for n in shape
    )
    return shape, blocks, key


@pytest.mark.parametrize("large", [0, 1 << 30])
@given(cases())
def test_elements_go_where_they_belong(large, case):
    shape, blocks, key = case
    truth = np.arange(int(np.prod(shape))).reshape(shape)
    grid = ChunkGrid(shape, shape, blocks)
    selection = select(key, shape)
    padded = np.full([b * n for b, n in zip(blocks, grid.block_counts, strict=True)], -2)
    padded[tuple(slice(n) for n in shape)] = truth
    out = np.full(selection.counts, -1)
    kept = module.LARGE_BLOCK_BYTES
    module.LARGE_BLOCK_BYTES = large  # both ways of copying
    try:
        for cell in grid.cells(selection) if selection.size else ():
            pieces = []
            for number in cell.blocks:
                at = np.unravel_index(number, grid.block_counts) if shape else ()
                part = tuple(slice(i * b, (i + 1) * b) for i, b in zip(at, blocks, strict=True))
                pieces.append(padded[part].tobytes())
            scatter(memoryview(b"".join(pieces)), truth.dtype, blocks, cell, out)
    finally:
        module.LARGE_BLOCK_BYTES = kept
    assert np.array_equal(out, truth[key])
