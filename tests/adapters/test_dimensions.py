"""Names of dimensions: where they are found, and that one name stands for one length."""

from __future__ import annotations

import pytest

from caterva2.adapters.dimensions import dimensions_together, stored_dimensions


@pytest.mark.parametrize(
    ("attrs", "names"),
    [
        ({"_ARRAY_DIMENSIONS": ["time", "x"]}, ("time", "x")),
        ({"dimensions": ["time", "x"]}, ("time", "x")),
        ({"dims": "time x"}, ("time", "x")),
        ({"dims": "time, x"}, ("time", "x")),
        ({"_ARRAY_DIMENSIONS": ["time", "x"], "dims": ["a", "b"]}, ("time", "x")),
        ({"_ARRAY_DIMENSIONS": ["time"], "dims": ["a", "b"]}, ("a", "b")),
        ({"dims": ["x", "x"]}, None),
        ({"dims": ["x", 1]}, None),
        ({"dims": ["x", ""]}, None),
        ({"dims": 2}, None),
        ({"dims": {"x": 2, "y": 3}}, None),
        ({}, None),
    ],
)
def test_names_are_found_in_attributes(attrs, names) -> None:
    found = stored_dimensions(attrs, 2)
    assert (found and found[1]) == names
    assert found is None or found[0] in attrs


def test_an_array_without_dimensions_may_say_so() -> None:
    assert stored_dimensions({"dims": []}, 0) == ("dims", ())


def together(shapes, stored=None, outer=None):
    return dimensions_together(shapes, stored or {}, outer)


def test_dimensions_without_names_are_numbered_and_shared_where_lengths_agree() -> None:
    assert together({"a": (3, 4), "b": (3, 4)}) == {"a": ("dim_0", "dim_1"), "b": ("dim_0", "dim_1")}
    assert together({"a": (3, 4), "b": (3, 5), "c": ()}) == {
        "a": ("dim_0", "a_dim_1"),
        "b": ("dim_0", "b_dim_1"),
        "c": (),
    }


def test_a_coordinate_says_what_length_a_name_stands_for() -> None:
    shapes = {"t": (4, 3), "u": (5, 3), "time": (5,)}
    stored = {"t": ("time", "x"), "u": ("time", "x")}
    assert together(shapes, stored) == {"t": ("t_time", "x"), "u": ("time", "x"), "time": ("time",)}


def test_an_array_without_names_is_the_coordinate_that_others_name() -> None:
    assert together({"t": (4,), "x": (4,)}, {"t": ("x",)})["x"] == ("x",)
    assert together({"t": (4,), "y": (4,)}, {"t": ("x",)})["y"] == ("dim_0",)


def test_lengths_outside_are_kept() -> None:
    assert together({"a": (3, 4)}, {"a": ("time", "x")}, {"time": 9}) == {"a": ("a_time", "x")}
    assert together({"a": (3, 4)}, {"a": ("time", "x")}, {"time": 3}) == {"a": ("time", "x")}
