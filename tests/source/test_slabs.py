import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caterva2.model.grid import ChunkGrid
from caterva2.model.selection import Selection, select
from caterva2.source.slabs import slabs

GRID = ChunkGrid((23, 17, 9), (8, 9, 5), (3, 4, 5))
VALUES = np.arange(23 * 17 * 9).reshape(GRID.shape)


def read(selection: Selection) -> np.ndarray:
    found = VALUES[tuple(slice(axis.start, axis.stop, axis.step) for axis in selection.axes)]
    reverse = tuple(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes)
    return found[reverse].reshape(selection.shape)


def keys(length: int) -> st.SearchStrategy:
    return st.integers(-length, length - 1) | st.slices(length)


@given(st.tuples(*map(keys, GRID.shape)), st.integers(1, 20_000))
def test_slabs_one_after_the_other_are_the_answer(key, slab_bytes):
    whole = select(key, GRID.shape)
    parts = list(slabs(GRID, whole, 8, slab_bytes))
    assert np.array_equal(np.concatenate([read(part).ravel() for part in parts]), VALUES[key].ravel())


@given(st.integers(1, 20_000))
def test_no_slab_is_much_larger_than_asked_for(slab_bytes):
    for part in slabs(GRID, select((), GRID.shape), 8, slab_bytes):
        assert part.size * 8 <= max(4 * slab_bytes, 8)


def test_slabs_end_where_blocks_end():
    parts = slabs(GRID, select((), GRID.shape), 8, 4 * 17 * 9 * 8)
    assert [(part.axes[0].start, part.axes[0].count) for part in parts] == [
        (0, 3), (3, 3), (6, 2), (8, 3), (11, 3), (14, 2), (16, 3), (19, 4),
    ]  # fmt: skip
