from __future__ import annotations

import json

import numpy as np
import pytest

from caterva2.cli.values import json_values


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.int8(-3), -3),
        (np.array([True, False]), [True, False]),
        (np.array([2**63], np.uint64), [2**63]),
        (np.array([1.5, np.nan, np.inf], np.float16), [1.5, None, None]),
        (np.array([1 - 2j], np.complex64), [[1.0, -2.0]]),
        (np.array([b"a\xff"]), ["aÿ"]),
        (np.array(["é"]), ["é"]),
        (np.array(["2026-01-02", "NaT"], "M8[D]"), ["2026-01-02", None]),
        (np.array([5, "NaT"], "m8[s]"), [5, None]),
        (np.array([b"\x01\x02"], "V2"), ["AQI="]),
        (np.array([(1, "x")], [("a", "i4"), ("b", "U3")]), [{"a": 1, "b": "x"}]),
        (np.array([([1, 2],)], [("v", "i4", (2,))]), [{"v": [1, 2]}]),
        (np.array((1, 2.5), [("a", "i4"), ("b", "f4")]), {"a": 1, "b": 2.5}),
        (np.zeros((2, 0)), [[], []]),
    ],
)
def test_values_are_those_that_json_has(array, expected) -> None:
    values = json_values(np.asarray(array))
    assert values == expected
    json.dumps(values, allow_nan=False)
