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


def test_pages_of_chunks_without_bytes():
    starts = page_starts(np.zeros(3 * PAGE_CHUNKS + 1, np.int64))
    assert starts.tolist() == [0, PAGE_CHUNKS, 2 * PAGE_CHUNKS, 3 * PAGE_CHUNKS]


def test_digests():
    assert len(digest(b"")) == DIGEST_BYTES
    assert digest(b"abc") == digest(memoryview(b"abc")) != digest(b"abd")
