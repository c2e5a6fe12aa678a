import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2.errors import InvalidSelection
from caterva2.model.selection import MAX_NDIM, parse_selection, select

BOUND = st.none() | st.integers(-25, 25)
PART = st.builds(slice, BOUND, BOUND, st.none() | st.integers(-7, 7).filter(bool))


@st.composite
def keys(draw):
    shape = tuple(draw(st.lists(st.integers(0, 20), max_size=3)))
    key = [draw(PART | st.integers(-n, n - 1)) if n else draw(PART) for n in shape]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(key)))
        key[at : at + draw(st.integers(0, 2))] = [Ellipsis]
    return shape, tuple(key)


@given(keys())
def test_selections_are_those_of_numpy(drawn):
    shape, key = drawn
    array = np.arange(int(np.prod(shape))).reshape(shape)
    selection = select(key, shape)
    want = array[(*key, Ellipsis)] if Ellipsis not in key else array[key]
    assert selection.shape == want.shape
    assert selection.size == want.size
    found = array[tuple(slice(axis.start, axis.stop, axis.step) for axis in selection.axes)]
    found = found[(*(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes), Ellipsis)]
    assert np.array_equal(found.reshape(selection.shape), want)


@given(keys())
def test_text_and_back(drawn):
    shape, key = drawn
    selection = select(key, shape)
    back = parse_selection(str(selection), shape)
    assert back.shape == selection.shape
    assert back == selection or not selection.size


@pytest.mark.parametrize("text", [None, "", "  ", "...", ":", "[:, ...]", ":,:", "0:10, 0:5,"])
def test_all_of_it(text):
    assert parse_selection(text, (10, 5)) == select((), (10, 5))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("1,", (1,)),
        ("-1", (-1,)),
        (" 1 : 5 : 2 , 3", (slice(1, 5, 2), 3)),
        ("::-1", (slice(None, None, -1),)),
        ("..., 2", (Ellipsis, 2)),
        (":,2", (slice(None), 2)),
        ("[3]", (3,)),
    ],
)
def test_texts(text, key):
    assert parse_selection(text, (10, 5)) == select(key, (10, 5))


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "1:2:3:4",
        "1.5",
        "::0",
        "10",
        "-11",
        "0,0,0",
        "...,...",
        "1 2",
        "--1",
        "9" * 20,
        "1" + "," * 50,
        "None",
        "0x1",
        "٣",
        "1:b",
        "[[1]]",
        "1;2",
    ],
)
def test_malformed_texts(text):
    with pytest.raises(InvalidSelection):
        parse_selection(text, (10, 5))


@pytest.mark.parametrize(
    "key", [None, (0, None), [1, 2], True, 1.0, "1", slice(0.5), slice(None, None, 0), (..., ...)]
)
def test_malformed_keys(key):
    with pytest.raises(InvalidSelection):
        select(key, (10, 5))


def test_integers_of_numpy_select():
    assert select(np.int64(3), (10,)) == select(3, (10,))


def test_the_most_dimensions():
    shape = (2,) * MAX_NDIM
    assert parse_selection(",".join("1" * MAX_NDIM), shape).shape == ()
