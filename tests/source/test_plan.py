import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caterva2.model.grid import ChunkGrid
from caterva2.model.selection import select
from caterva2.source.plan import bounded, point_pieces


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 9))
def test_parts_of_a_cell_are_the_cell(step, most, first):
    grid = ChunkGrid((100, 90), (60, 50), (7, 11))
    array = np.arange(9000).reshape(100, 90)
    selection = select((slice(first, None, step), slice(0, 85, 3)), array.shape)
    out = np.full(selection.counts, -1)
    for cell in grid.cells(selection):
        for part in bounded(grid, cell, most):
            assert len(part.blocks) <= most
            assert part.nchunk == cell.nchunk
            i, j = np.unravel_index(part.nchunk, grid.chunk_counts)
            chunk = array[i * 60 : (i + 1) * 60, j * 50 : (j + 1) * 50]
            assert (out[part.target] == -1).all()
            out[part.target] = chunk[part.source]
    assert np.array_equal(out, array[first::step, 0:85:3])


def test_points_name_each_chunk_and_block_once():
    grid = ChunkGrid((100,), (50,), (10,))
    index = np.array([99, 1, 2, 98, 55, 1])
    pieces = list(point_pieces(grid, {0: index}, {}, 80))
    assert [(piece.nchunk, piece.blocks) for piece in pieces] == [(0, (0,)), (1, (0, 4))]
    assert sorted(np.concatenate([piece.target[0] for piece in pieces]).tolist()) == list(range(6))
