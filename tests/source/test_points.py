import numpy as np
import pytest

from caterva2.errors import InvalidSelection, TooLarge
from caterva2.source.points import MAX_POINTS, parse_points


def test_keys_without_lists_are_no_points():
    assert parse_points((1, slice(3)), (10, 10)) is None


def test_negative_indices_count_from_the_end():
    found = parse_points(([0, -1], 2), (10, 5))
    assert {d: index.tolist() for d, index in found.points.items()} == {0: [0, 9], 1: [2, 2]}
    assert (found.counts, found.shape, found.position, found.slices) == ((2,), (2,), 0, {})


@pytest.mark.parametrize(
    ("key", "position"),
    [
        ((slice(None), [1]), 1),
        (([1], slice(None), [1]), 0),
        ((slice(None), [1], 0), 1),
        ((0, slice(None), [1]), 0),
    ],
    ids=str,
)
def test_where_the_points_go(key, position):
    assert parse_points(key, (10, 10, 10)).position == position


def test_what_was_gathered_is_arranged_as_numpy_does():
    array = np.arange(60).reshape(3, 4, 5)
    key = (slice(None, None, -1), [[0, 3], [1, 1]], slice(1, 4))
    found = parse_points(key, array.shape)
    gathered = array[:, [0, 3, 1, 1], 1:4].transpose(1, 0, 2)
    assert np.array_equal(found.arrange(gathered), array[key])


def test_too_many_points_by_broadcasting():
    side = int(MAX_POINTS**0.5) + 1
    with pytest.raises(TooLarge):
        parse_points(([[0]] * side, [[0] * side]), (2, 2))


@pytest.mark.parametrize("key", [([1.5],), ([False],), ([2],), ([0, 1], [0, 1, 0]), ([0], 0, 0)], ids=str)
def test_malformed_keys(key):
    with pytest.raises(InvalidSelection):
        parse_points(key, (2, 2))
