from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from caterva2.errors import BadRequest
from caterva2.http.conditional import honours_range, not_modified, wanted_etags


def headers(name: str, *values: str) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for value in values])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        (("*",), None),
        (('"a"',), ["a"]),
        (('"a", "b,c",W/"d"',), ["a", "b,c", "W/d"]),
        (('"a"', ' "b" '), ["a", "b"]),
        (('""',), [""]),
    ],
)
def test_if_match(values, expected) -> None:
    assert wanted_etags(headers("if-match", *values)) == expected


@pytest.mark.parametrize("value", ["", "a", '"a', '"a" "b"', '"a", *', "W/a", '"a"b', ","])
def test_a_malformed_if_match_is_refused(value) -> None:
    with pytest.raises(BadRequest):
        wanted_etags(headers("if-match", value))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), False),
        (("*",), True),
        (('"a"',), True),
        (('"b", W/"a"',), True),
        (('"b"', '"a"'), True),
        (("a",), False),
        (('"aa"',), False),
        (('"b,a"',), False),
        (("",), False),
        (('"x" , "a"',), True),
    ],
)
def test_if_none_match(values, expected) -> None:
    assert not_modified(headers("if-none-match", *values), "a") is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), True), (('"a"',), True), (('W/"a"',), False), (("Tue, 24 Nov 2026 04:00:00 GMT",), False)],
)
def test_if_range(values, expected) -> None:
    assert honours_range(headers("if-range", *values), "a") is expected
