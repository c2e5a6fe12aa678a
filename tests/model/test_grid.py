import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caterva2.model.grid import ChunkGrid
from caterva2.model.selection import select

STEP = st.none() | st.integers(-7, 7).filter(bool)
BOUND = st.none() | st.integers(-25, 25)


@st.composite
def grids(draw):
    shape = tuple(draw(st.lists(st.integers(0, 20), max_size=3)))
    chunks = tuple(draw(st.integers(1, 9)) for _ in shape)
    blocks = tuple(draw(st.integers(1, chunk)) for chunk in chunks)
    key = tuple(
        draw(st.builds(slice, BOUND, BOUND, STEP) | st.integers(0, n - 1))
        if n
        else draw(st.builds(slice, BOUND, BOUND, STEP))
        for n in shape
    )
    return ChunkGrid(shape, chunks, blocks), select(key, shape)


def padded(array, shape, fill):
    out = np.full(shape, fill)
    out[tuple(slice(0, n) for n in array.shape)] = array
    return out


def side_by_side(chunk, grid, box):
    """The blocks of a box of a chunk, laid side by side."""
    whole = [block * count for block, count in zip(grid.blocks, grid.block_counts, strict=True)]
    region = padded(chunk, whole, -3)
    for d, numbers in enumerate(box):
        block = grid.blocks[d]
        indices = [n * block + i for n in numbers for i in range(block)]
        region = np.take(region, indices, axis=d)
    return region


def pick(array, region):
    indices = [
        np.arange(n)[list(part) if isinstance(part, tuple) else part]
        for n, part in zip(array.shape, region, strict=True)
    ]
    return array[np.ix_(*indices)] if indices else array


@given(grids())
def test_cells_are_the_selection(drawn):
    grid, selection = drawn
    array = np.arange(int(np.prod(grid.shape))).reshape(grid.shape)
    everything = padded(array, [c * n for c, n in zip(grid.chunks, grid.chunk_counts, strict=True)], -2)
    out = np.full(selection.counts, -1)
    seen = []
    for cell in grid.cells(selection):
        seen.append(cell.nchunk)
        at = np.unravel_index(cell.nchunk, grid.chunk_counts) if grid.shape else ()
        chunk = everything[tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, grid.chunks, strict=True))]
        assert list(cell.blocks) == sorted(set(cell.blocks))
        assert len(cell.blocks) == np.prod([len(numbers) for numbers in cell.box])
        values = pick(side_by_side(chunk, grid, cell.box), cell.region)
        assert np.array_equal(values, chunk[cell.source])
        assert (out[cell.target] == -1).all()  # nothing is written twice
        out[cell.target] = values
    assert seen == sorted(set(seen))
    key = tuple(slice(axis.start, axis.stop, axis.step) for axis in selection.axes)
    assert np.array_equal(out, array[key])


def test_counts():
    grid = ChunkGrid((10, 7), (4, 7), (3, 2))
    assert (grid.chunk_counts, grid.block_counts, grid.nchunks, grid.nblocks) == ((3, 1), (2, 4), 3, 8)
    assert ChunkGrid((), (), ()).nchunks == ChunkGrid((), (), ()).nblocks == 1
    assert ChunkGrid((0, 5), (1, 5), (1, 5)).nchunks == 0


def test_blocks_that_a_step_jumps_over_are_left_out():
    grid = ChunkGrid((100,), (50,), (5,))
    cells = list(grid.cells(select(slice(0, 100, 20), (100,))))
    assert [cell.blocks for cell in cells] == [(0, 4, 8), (2, 6)]
    assert [cell.nchunk for cell in grid.cells(select(slice(0, 100, 99), (100,)))] == [0, 1]
