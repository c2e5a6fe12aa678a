from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caterva2.cache.spans import Spans, joined

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.sampled_from("gsa")), max_size=8)
"""Offset, size, and whether it is going, staying or absent."""


def covered(ranges):
    return {byte for start, size, _ in ranges for byte in range(start, start + size)}


def listed(pair):
    return list(zip(pair[0].tolist(), pair[1].tolist(), strict=True))


@given(RANGES)
def test_joined(ranges):
    starts = np.array([start for start, _, _ in ranges], np.int64)
    sizes = np.array([size for _, size, _ in ranges], np.int64)
    found = listed(joined(starts, starts + sizes))
    assert {byte for start, stop in found for byte in range(start, stop)} == covered(ranges)
    assert all(stop < start for (_, stop), (start, _) in pairwise(found))


@given(RANGES)
def test_what_is_free_around_those_that_go(ranges):
    offsets = np.array([start for start, _, _ in ranges], np.int64)
    sizes = np.array([size for _, size, _ in ranges], np.int64)
    states = np.array([state for _, _, state in ranges], "U1")
    spans = Spans(np.arange(len(ranges)), offsets, sizes)
    found = listed(spans.around(states == "g", states == "s"))
    going, staying, everything = (
        covered(one for one in ranges if one[2] in wanted) for wanted in ("g", "s", "gsa")
    )
    free = everything - staying
    freed = {byte for start, stop in found for byte in range(start, stop)}
    assert going - staying <= freed <= free
    for start, stop in found:
        assert going & set(range(start, stop))
        assert start - 1 not in free
        assert stop not in free


def test_from_one_that_stays_to_the_next():
    spans = Spans(*np.array([[0, 1, 2, 3], [0, 10, 20, 30], [10, 10, 10, 10]], np.int64))
    going, staying = np.array([False, False, True, False]), np.array([True, False, False, True])
    assert listed(spans.around(going, staying)) == [(10, 30)]
