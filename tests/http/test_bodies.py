from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caterva2.http.ranges import MAX_RANGES

QUOTED = "/data/foo/text%20%C3%A9%20%23%3F%25.bin"


@pytest.fixture
def text() -> bytes:
    return bytes(range(256)) * 1200


async def test_the_whole_file(running, text) -> None:
    status, headers, body = await running.get(QUOTED)
    assert (status, body) == (200, text)
    assert headers["Content-Length"] == str(len(text))
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["X-Caterva2-Freshness"] == "fresh"


async def test_head_has_the_headers_and_no_body(running, text) -> None:
    status, headers, body = await running.get(QUOTED, "HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == str(len(text))


async def test_an_empty_file(running) -> None:
    status, headers, body = await running.get("/data/foo/empty")
    assert (status, headers["Content-Length"], body) == (200, "0", b"")
    status, _problem = await running.problem("/data/foo/empty", headers={"Range": "bytes=0-0"})
    assert status == 416


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-0", 0, 1), ("10-", 10, None), ("-5", -5, None), ("300000-999999999", 300000, None), ("5-9", 5, 10)],
)
async def test_one_range(running, text, asked, start, stop) -> None:
    status, headers, body = await running.get(QUOTED, headers={"Range": f"bytes={asked}"})
    assert (status, body) == (206, text[start:stop])
    first = start % len(text)
    assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(text)}"


async def test_several_ranges_are_parts_in_the_order_asked_for(running, text) -> None:
    status, headers, body = await running.get(QUOTED, headers={"Range": "bytes=500-599, 0-9, -3"})
    assert status == 206
    assert int(headers["Content-Length"]) == len(body)
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + body, policy=email.policy.HTTP).get_payload()
    assert [part["Content-Range"].split()[1].split("/")[0] for part in parts] == [
        "500-599",
        "0-9",
        f"{len(text) - 3}-{len(text) - 1}",
    ]
    assert text[500:600] in body


@pytest.mark.parametrize(
    "asked", ["bytes=9999999-", "bytes=-0", "bytes=" + ",".join(["0-1"] * (MAX_RANGES + 1))]
)
async def test_ranges_that_cannot_be_satisfied(running, text, asked) -> None:
    status, problem = await running.problem(QUOTED, headers={"Range": asked})
    assert (status, problem["type"]) == (416, "urn:caterva2:problem:invalid-range")
    status, headers, _ = await running.get(QUOTED, headers={"Range": asked})
    assert headers["Content-Range"] == f"bytes */{len(text)}"


async def test_overlapping_ranges_do_not_make_a_large_answer(running) -> None:
    asked = "bytes=" + ",".join(["0-"] * 30)
    assert (await running.problem(QUOTED, headers={"Range": asked}))[0] == 416


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=x", "bytes=", "bytes=5-1", "bytes"])
async def test_what_is_no_range_is_ignored(running, text, asked) -> None:
    status, _, body = await running.get(QUOTED, headers={"Range": asked})
    assert (status, body) == (200, text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 310_000), st.integers(0, 310_000))
async def test_any_range_is_the_bytes_of_the_file(running, text, first, last) -> None:
    status, _, body = await running.get(QUOTED, headers={"Range": f"bytes={first}-{last}"})
    if last < first:
        assert (status, body) == (200, text)
    elif first >= len(text):
        assert status == 416
    else:
        assert (status, body) == (206, text[first : last + 1])


async def test_conditions(running, text) -> None:
    _, headers, _ = await running.get(QUOTED)
    etag = headers["ETag"]
    assert (await running.get(QUOTED, headers={"If-None-Match": etag}))[0] == 304
    assert (await running.get(QUOTED, headers={"If-None-Match": f'"x", W/{etag}'}))[0] == 304
    assert (await running.get(QUOTED, headers={"If-None-Match": '"x"'}))[0] == 200
    assert (await running.get(QUOTED, headers={"If-Match": etag}))[0] == 200
    assert (await running.get(QUOTED, headers={"If-Match": "*"}))[0] == 200
    status, problem = await running.problem(QUOTED, headers={"If-Match": '"x"'})
    assert (status, problem["wanted_etag"]) == (412, "x")
    assert problem["current_etag"] == etag.strip('"')
    assert (await running.problem(QUOTED, headers={"If-Match": '"a", "b"'}))[0] == 400
    ranged = {"Range": "bytes=0-3", "If-Range": etag}
    assert (await running.get(QUOTED, headers=ranged))[2] == text[:4]
    assert (await running.get(QUOTED, headers=ranged | {"If-Range": '"x"'}))[2] == text


async def test_a_download_has_a_name(running, text) -> None:
    status, headers, body = await running.get(QUOTED.replace("/data/", "/api/download/"))
    assert (status, body) == (200, text)
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''text%20%C3%A9%20%23%3F%25.bin"


async def test_a_failure_behind_the_first_piece_breaks_the_connection(running, files, monkeypatch) -> None:
    import aiohttp

    from caterva2.errors import Changed

    async def stream(head, start, stop):
        yield b"x" * 1000
        raise Changed(str(head.path), head.etag)

    monkeypatch.setattr(files, "stream", stream)
    with pytest.raises(aiohttp.ClientPayloadError):
        await running.get(QUOTED)


async def test_a_failure_before_the_first_piece_is_a_problem(running, files, monkeypatch) -> None:
    from caterva2.errors import Unavailable

    async def stream(head, start, stop):
        raise Unavailable("it is gone", 7)
        yield b""

    monkeypatch.setattr(files, "stream", stream)
    status, problem = await running.problem(QUOTED)
    assert (status, problem["retry_after_s"]) == (503, 7)
    assert (await running.get(QUOTED))[1]["Retry-After"] == "7"
