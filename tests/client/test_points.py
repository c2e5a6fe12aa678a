"""Lists and masks that select more than one request can name: the same as numpy, and not too much moved."""

from __future__ import annotations

import numpy as np
import pytest

import caterva2.client.points as module
from caterva2.client.keys import fancy
from caterva2.errors import InvalidSelection, TooLarge

RANDOM = np.random.default_rng(11)
SPARSE = RANDOM.random((12, 10, 14)) < 0.05
DENSE = RANDOM.random((12, 10, 14)) < 0.6
CORNERS = np.zeros((12, 10, 14), bool)
CORNERS[::11, ::9, ::13] = True

KEYS = [
    SPARSE,
    DENSE,
    CORNERS,
    DENSE[:, :, 0],
    CORNERS[:, :, 0],
    SPARSE[:, 0, 0],
    (DENSE[:, 0, 0],),
    (slice(None), DENSE[0, :, 0], slice(None, None, -2)),
    (2, slice(None), DENSE[0, 0]),
    (slice(1, 9, 3), slice(None), RANDOM.integers(-14, 14, 100)),
    (RANDOM.integers(-12, 12, 100), slice(2, 4), RANDOM.integers(-14, 14, 100)),
    (RANDOM.integers(0, 12, (6, 1, 5)), RANDOM.integers(0, 10, (4, 1))),
    (slice(None), [9, 0], [0, 13]),
    ([11, 0], ...),
    (..., [3] * 77),
]


@pytest.mark.parametrize("limits", [(10, 64, 200), (30, 10**6, 10**9), (40_000, 300, 1)], ids=str)
def test_what_is_read_in_several_requests_is_what_numpy_gives(client, truths, monkeypatch, limits) -> None:
    for name, limit in zip(("MOST_INDICES", "ANSWER_BYTES", "BOX_BYTES"), limits, strict=True):
        monkeypatch.setattr(module, name, limit)
    monkeypatch.setattr(module, "ROW_BYTES", 100)
    array, truth = client["foo/cube.b2nd"], truths["cube.b2nd"]
    for key in KEYS:
        got = array[key]
        assert got.dtype == truth.dtype
        assert np.array_equal(got, truth[key]), key


def test_a_mask_of_much_is_read_as_a_box(client, truths) -> None:
    """Hundreds of thousands of indices would take longer than the elements."""
    array, mask = client["foo/zeros.b2nd"], np.ones((300, 300), bool)
    mask[5, 7] = False
    asked = []
    ask = array._ask
    array._ask = lambda request, *args, **options: asked.append(request) or ask(request, *args, **options)
    assert array[mask].shape == (89_999,)
    assert all("indices" not in request.target and request.body is None for request in asked)
    assert array[mask[:, 7]].shape == (299, 300)
    asked.clear()
    mask[...] = False
    mask[::299, ::299] = True
    assert array[mask].shape == (4,)
    (request,) = asked
    assert "indices" in request.target


def test_what_is_out_of_bounds_is_refused_however_long_the_list(client, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_INDICES", 3)
    for key in ([0, 1, 2, 12], ([0, 1, 2, 3], [0, 1, 2, 10]), [-13] * 9):
        with pytest.raises(InvalidSelection, match="out of bounds"):
            client["foo/cube.b2nd"][key]


def test_lists_that_do_not_fit_each_other(client) -> None:
    with pytest.raises(InvalidSelection, match="fit"):
        client["foo/cube.b2nd"][[1, 2, 3], [1, 2]]


def test_a_service_that_makes_no_answer_as_large_says_so(running, client) -> None:
    reader = running.cluster.subscriber.reader
    before, reader._limit_bytes = reader._limit_bytes, 100
    try:
        with pytest.raises(TooLarge):
            client["foo/cube.b2nd"][[0, 1], [0, 1], :]
    finally:
        reader._limit_bytes = before


@pytest.mark.parametrize("key", KEYS[5:], ids=str)
def test_a_key_knows_its_result(truths, key) -> None:
    truth = truths["cube.b2nd"]
    known = fancy(key if isinstance(key, tuple) else (key,), truth.shape)
    counts = [axis.count for axis in known.slices.values()]
    shape = (*counts[: known.position], *known.common, *counts[known.position :])
    assert truth[key].shape == shape
