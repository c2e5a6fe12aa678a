"""Cutting selections: the parts are the whole, fit, and share no chunk."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caterva2.model.parts import ANSWER_CHUNK_BYTES, answer_chunks, cut, cut_answer
from caterva2.model.selection import select


@st.composite
def cases(draw):
    ndim = draw(st.integers(0, 3))
    shape = tuple(draw(st.integers(0, 12)) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, 6)) for _ in range(ndim))
    key = tuple(
        draw(st.slices(length)) if not length or draw(st.booleans()) else draw(st.integers(0, length - 1))
        for length in shape
    )
    return shape, chunks, select(key, shape), draw(st.integers(1, 200))


@given(cases())
def test_the_parts_are_the_whole(case) -> None:
    shape, chunks, selection, part_bytes = case
    source = np.arange(int(np.prod(shape)), dtype=np.uint16).reshape(shape)
    target = np.full(selection.counts, 65535, np.uint16)
    filled = np.zeros(selection.counts, int)
    for part in cut(selection, chunks, 2, part_bytes):
        axes = part.selection.axes
        assert not any(axis.drop or axis.reverse for axis in axes)
        assert part.selection.size * 2 <= max(2, part_bytes)
        key = tuple(slice(axis.start, axis.stop, axis.step) for axis in axes)
        target[part.target] = source[key]
        filled[part.target] += 1
    assert (filled == 1).all()
    forward = tuple(slice(axis.start, axis.stop, axis.step) for axis in selection.axes)
    assert np.array_equal(target, source[forward])


@given(cases())
def test_chunks_that_fit_are_not_cut(case) -> None:
    _shape, chunks, selection, _ = case
    fits = int(np.prod(chunks)) * 2
    seen: set[tuple] = set()
    for part in cut(selection, chunks, 2, fits):
        touched = [
            sorted({(axis.start + n * axis.step) // chunk for n in range(axis.count)})
            for axis, chunk in zip(part.selection.axes, chunks, strict=True)
        ]
        cells = (
            set(map(tuple, np.stack(np.meshgrid(*touched), -1).reshape(-1, len(chunks)))) if chunks else {()}
        )
        assert not cells & seen
        seen |= cells


def test_a_large_array_is_cut_between_its_rows_of_chunks() -> None:
    parts = cut(select((), (512, 512, 512)), (64, 128, 128), 4, 64 << 20)
    assert [str(part.selection) for part in parts] == [
        f"{start}:{start + 64}, 0:512, 0:512" for start in range(0, 512, 64)
    ]


def test_a_row_of_chunks_that_is_too_large_is_cut_along_the_next_dimension() -> None:
    parts = cut(select((), (10, 1000)), (10, 100), 1, 2500)
    assert [str(part.selection) for part in parts] == [f"0:10, {n}:{n + 200}" for n in range(0, 1000, 200)]


def test_nothing_is_no_parts() -> None:
    assert cut(select(slice(0, 0), (10,)), (5,), 8, 100) == []


@given(cases())
def test_the_parts_of_an_answer_are_the_answer_and_end_where_its_chunks_end(case) -> None:
    shape, chunks, selection, part_bytes = case
    source = np.arange(int(np.prod(shape)), dtype=np.uint16).reshape(shape)
    forward = tuple(slice(axis.start, axis.stop, axis.step) for axis in selection.axes)

    def read(selection):
        box = source[tuple(slice(axis.start, axis.stop, axis.step) for axis in selection.axes)]
        flip = tuple(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes)
        return box[flip].reshape(selection.shape)

    expected, target = read(selection), np.full(selection.shape, 65535, np.uint16)
    assert expected.size == source[forward].size
    for part in cut_answer(selection, chunks, 2, part_bytes):
        target[part.target] = read(part.selection)
    assert np.array_equal(target, expected)


@given(cases())
def test_chunks_of_an_answer_fit_it_and_are_of_a_fair_size(case) -> None:
    _shape, chunks, selection, itemsize = case
    itemsize *= 5000
    if not selection.size:
        return
    sizes = answer_chunks(selection, chunks, itemsize)
    assert all(1 <= size <= axis.count for size, axis in zip(sizes, selection.axes, strict=True))
    nbytes = int(np.prod(sizes)) * itemsize
    assert nbytes <= max(ANSWER_CHUNK_BYTES, itemsize)
    assert sizes == selection.counts or 4 * nbytes > ANSWER_CHUNK_BYTES
