from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caterva2.model.extents import DIGEST_BYTES, PAGE_BYTES, PAGE_CHUNKS, digest, page_starts


@given(st.lists(st.integers(0, 3 * PAGE_BYTES) | st.just(0), max_size=50))
def test_pages_are_bounded(sizes):
    starts = page_starts(np.array(sizes, np.int64))
    assert bool(len(starts)) == bool(sizes)
    for first, last in zip(starts, [*starts[1:], len(sizes)][: len(starts)], strict=True):
        assert last > first
        assert last == first + 1 or sum(sizes[first:last]) <= PAGE_BYTES
    if sizes:
        assert starts[0] == 0


@given(st.lists(st.integers(0, PAGE_BYTES // 8), min_size=1, max_size=3 * PAGE_CHUNKS), st.data())
def test_a_chunk_that_changes_moves_no_cuts_but_those_near_it(sizes, data):
    before = page_starts(np.array(sizes, np.int64))
    nchunk = data.draw(st.integers(0, len(sizes) - 1))
    sizes[nchunk] = data.draw(st.integers(0, PAGE_BYTES // 8))
    after = page_starts(np.array(sizes, np.int64))
    run = range(nchunk - nchunk % PAGE_CHUNKS, nchunk - nchunk % PAGE_CHUNKS + PAGE_CHUNKS)
    for start in set(before.tolist()) ^ set(after.tolist()):
        assert start in run
    # nor far from it in that run: where one half was cut, the other was already
    assert len(set(before.tolist()) ^ set(after.tolist())) <= np.log2(PAGE_CHUNKS) + 1


@given(st.lists(st.integers(0, PAGE_BYTES // 8), min_size=2, max_size=200), st.data())
def test_chunks_that_are_appended_move_no_cuts_far_before_them(sizes, data):
    before = page_starts(np.array(sizes[: data.draw(st.integers(1, len(sizes)))], np.int64))
    after = page_starts(np.array(sizes, np.int64))
    assert len(set(before.tolist()) - set(after.tolist())) == 0


def test_pages_of_chunks_without_bytes():
    starts = page_starts(np.zeros(3 * PAGE_CHUNKS + 1, np.int64))
    assert starts.tolist() == [0, PAGE_CHUNKS, 2 * PAGE_CHUNKS, 3 * PAGE_CHUNKS]


def test_digests():
    assert len(digest(b"")) == DIGEST_BYTES
    assert digest(b"abc") == digest(memoryview(b"abc")) != digest(b"abd")
