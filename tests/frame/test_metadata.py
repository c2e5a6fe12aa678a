import json
from datetime import UTC, datetime

import blosc2
import msgpack
import numpy as np
import pytest

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.metadata import MAX_DEPTH, json_value, parse_b2nd, parse_dtype, vlmeta


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        ("ñ", "ñ"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (b"abc", "abc"),
        (b"\xff\x00", "base64:/wA="),
        (1 + 2j, [1.0, 2.0]),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (np.int16(3), 3),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.datetime64("2020-01-02"), "2020-01-02"),
        (
            msgpack.Timestamp.from_datetime(datetime(2020, 1, 2, tzinfo=UTC)),
            "2020-01-02T00:00:00+00:00",
        ),
        (msgpack.ExtType(99, b"ab"), "extension 99 base64:YWI="),
        (msgpack.ExtType(44, b"short"), "extension 44 base64:c2hvcnQ="),
    ],
    ids=repr,
)
def test_values_become_json(value, shown):
    assert json_value(value) == shown
    json.dumps(json_value(value), allow_nan=False)


def test_deep_values_end():
    value = []
    for _ in range(MAX_DEPTH + 5):
        value = [value]
    assert "too deep" in json.dumps(json_value(value))


def test_what_blosc2_stores_of_numpy():
    array = blosc2.asarray(np.arange(3))
    truth = {"f": np.float32(1.5), "a": np.array([1, 2]), "c": 3j, "s": {1}, "t": (1, 2), "n": {"x": [None]}}
    for name, value in truth.items():
        array.schunk.vlmeta[name] = value
    raw = array.to_cframe()
    size = int.from_bytes(raw[-22:-18], "big")
    found = vlmeta(raw[-size:])
    assert found == {"f": 1.5, "a": [1, 2], "c": [0.0, 3.0], "s": [1], "t": [1, 2], "n": {"x": [None]}}


def test_large_metadata_are_named_not_shown():
    array = blosc2.asarray(np.arange(3))
    array.schunk.vlmeta["big"] = bytes(2_000_000)
    raw = array.to_cframe()
    assert "not shown" in vlmeta(raw[-int.from_bytes(raw[-22:-18], "big") :])["big"]


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[", "[('a',)]", "(" * 5000, "{'a': 1}", "<i3", 7, "x" * 10**5]
)
def test_what_is_no_dtype(text):
    with pytest.raises((Corrupt, Unsupported)):
        parse_dtype(text)


@pytest.mark.parametrize("text", ["|O", "[('a', 'O')]", "S0", "(3,)i4"])
def test_dtypes_that_do_not_lie_in_bytes(text):
    with pytest.raises((Corrupt, Unsupported)):
        parse_dtype(text)


def b2nd(**changes):
    parts = {
        "version": 0,
        "ndim": 1,
        "shape": [10],
        "chunks": [4],
        "blocks": [2],
        "format": 0,
        "dtype": "<i4",
    }
    return msgpack.packb(list({**parts, **changes}.values()))


def test_b2nd():
    found = parse_b2nd(b2nd())
    assert (found.shape, found.chunks, found.blocks, found.dtype) == ((10,), (4,), (2,), np.dtype("<i4"))


@pytest.mark.parametrize(
    "changes",
    [
        {"ndim": 2}, {"shape": [-1]}, {"shape": [2**63]}, {"shape": ["a"]}, {"shape": 3}, {"blocks": [5]},
        {"chunks": [0]}, {"blocks": [0]}, {"chunks": [[1]]}, {"shape": [True]},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_b2nd(changes):
    with pytest.raises(Corrupt):
        parse_b2nd(b2nd(**changes))


@pytest.mark.parametrize("changes", [{"version": 1}, {"format": 1}])
def test_newer_b2nd(changes):
    with pytest.raises(Unsupported):
        parse_b2nd(b2nd(**changes))
