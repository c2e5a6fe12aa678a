"""Going through an array chunk by chunk."""

from __future__ import annotations

import numpy as np
import pytest

from caterva2.client.chunked import chunk_slices
from caterva2.errors import InvalidSelection
from caterva2.model.selection import select

SELECTIONS = [
    ...,
    (),
    3,
    (slice(7, 50), slice(10, 30)),
    (slice(None, None, 7), -1),
    slice(55, 2, -9),
    (slice(0, 0),),
    (slice(19, 21), slice(24, 26)),
]


@pytest.mark.parametrize("sel", SELECTIONS, ids=str)
def test_chunks_make_up_what_is_selected(client, truths, sel) -> None:
    array, truth = client["foo/ints.b2nd"], truths["ints.b2nd"]
    seen = np.zeros(truth.shape, int)
    for where in array.iter_chunks(sel):
        assert (
            len(
                {
                    (at.start // chunk, (at.stop - 1) // chunk)
                    for at, chunk in zip(where, (20, 25), strict=True)
                }
            )
            <= 2
        )
        seen[where] += 1
    expected = np.zeros(truth.shape, int)
    expected[sel] = 1
    assert np.array_equal(seen, expected)
    for where, found in array.read_chunks(sel):
        assert np.array_equal(found, truth[where])
        assert found.ndim == 2


def test_they_are_those_of_h5py(tmp_path, client, truths) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        theirs = file.create_dataset("x", data=truths["ints.b2nd"], chunks=(20, 25))
        ours = client["foo/ints.b2nd"]
        for sel in (None, (slice(5, 45), slice(30, 49))):
            given = () if sel is None else (sel,)
            assert list(ours.iter_chunks(*given)) == [
                tuple(slice(at.start, at.stop) for at in where) for where in theirs.iter_chunks(sel)
            ]


def test_no_chunks_where_there_is_nothing(client) -> None:
    assert list(client["foo/empty.b2nd"].iter_chunks()) == []
    assert list(client["foo/empty.b2nd"].read_chunks()) == []
    assert list(client["foo/scalar.b2nd"].iter_chunks()) == [()]
    ((where, found),) = client["foo/scalar.b2nd"].read_chunks()
    assert (where, found[()]) == ((), np.float32(2.5))
    with pytest.raises(InvalidSelection):
        client["foo/ints.b2nd"].iter_chunks(60)


def test_a_large_grid_takes_no_memory() -> None:
    slices = chunk_slices(select((slice(0, 10**6), slice(0, 10**6)), (10**6, 10**6)), (1000, 1000))
    assert next(slices) == (slice(0, 1000), slice(0, 1000))
