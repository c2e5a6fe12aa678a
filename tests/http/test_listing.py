"""Long listings: the same JSON as in one go, and never long on the event loop."""

from __future__ import annotations

import json

import pytest

from caterva2.http.listing import RUN, json_array, json_response


@pytest.mark.parametrize("count", [0, 1, RUN, RUN + 1, 3 * RUN])
async def test_it_is_one_array(count: int) -> None:
    rows = await json_array(range(count), lambda number: {"n": number, "text": "ä"})
    assert json.loads(rows) == [{"n": number, "text": "ä"} for number in range(count)]


async def test_answers() -> None:
    rows = await json_array(["a", "b"], str)
    assert bytes(json_response(rows).body) == b'["a","b"]'
    alone = json_response(rows, members={})
    assert (bytes(alone.body), alone.media_type) == (b'{"rows":["a","b"]}', "application/json")
    with_more = json_response(rows, members={"root": "foo", "next": None}, headers={"ETag": '"x"'})
    assert json.loads(bytes(with_more.body)) == {"root": "foo", "next": None, "rows": ["a", "b"]}
    assert with_more.headers["etag"] == '"x"'
