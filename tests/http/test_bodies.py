from __future__ import annotations

import asyncio
import email
import email.policy

import aiohttp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caterva2.errors import Changed
from caterva2.http.bodies import WHOLE_BYTES
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
    assert (await running.get(QUOTED, headers={"If-Match": f'"a", {etag}'}))[0] == 200
    for other in ('"a", "b"', f"W/{etag}"):  # weak etags never match here
        assert (await running.problem(QUOTED, headers={"If-Match": other}))[0] == 412
    for malformed in ("a", '"a', "", '"a" x', etag.strip('"')):
        assert (await running.problem(QUOTED, headers={"If-Match": malformed}))[0] == 400, malformed
    ranged = {"Range": "bytes=0-3", "If-Range": etag}
    assert (await running.get(QUOTED, headers=ranged))[2] == text[:4]
    assert (await running.get(QUOTED, headers=ranged | {"If-Range": '"x"'}))[2] == text


async def test_a_download_has_a_name(running, text) -> None:
    status, headers, body = await running.get(QUOTED.replace("/data/", "/api/download/"))
    assert (status, body) == (200, text)
    assert headers["Content-Disposition"] == (
        "attachment; filename=\"text _ #?_.bin\"; filename*=UTF-8''text%20%C3%A9%20%23%3F%25.bin"
    )


async def test_head_has_no_ranges(running, text) -> None:
    status, headers, _ = await running.get(QUOTED, "HEAD", headers={"Range": "bytes=0-9"})
    assert (status, headers["Content-Length"]) == (200, str(len(text)))


@pytest.fixture
async def large(files, tmp_path) -> bytes:
    """A file of more pieces than one, larger than what is collected before it is sent."""
    content = np.random.default_rng(1).bytes(WHOLE_BYTES * 3 + 77)
    (tmp_path / "large").write_bytes(content)
    await files.add(tmp_path / "large", "large")
    return content


def parts_of(headers, body: bytes) -> list[tuple[str, bytes]]:
    """Take a multipart body apart by its lengths alone."""
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    found, at = [], 0
    while not body[at:].startswith(b"--" + boundary + b"--\r\n"):
        end = body.index(b"\r\n\r\n", at)
        lines = body[at:end].decode().split("\r\n")
        assert lines[0] == f"--{boundary.decode()}"
        where = next(line for line in lines if line.startswith("Content-Range: bytes ")).split()[2]
        first, last = map(int, where.partition("/")[0].split("-"))
        start = end + 4
        found.append((where, body[start : start + last - first + 1]))
        at = start + last - first + 1
        assert body[at : at + 2] == b"\r\n"
        at += 2
    assert len(body) == at + len(boundary) + 6
    return found


SPEC = st.tuples(st.integers(0, 3_300_000), st.integers(0, 400_000) | st.none())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SPEC | st.tuples(st.none(), st.integers(0, 400_000)), min_size=1, max_size=8))
async def test_any_ranges_are_the_bytes_of_the_file(running, large, specs) -> None:
    asked = ",".join(
        f"{'' if a is None else a}-{'' if b is None else b if a is None else a + b}" for a, b in specs
    )
    size, expected = len(large), []
    for a, b in specs:
        start = max(0, size - b) if a is None else a
        stop = size if a is None or b is None else min(size, a + b + 1)
        if start < stop:
            expected.append((f"{start}-{stop - 1}/{size}", large[start:stop]))
    status, headers, body = await running.get("/data/foo/large", headers={"Range": f"bytes={asked}"})
    assert int(headers["Content-Length"]) == len(body)
    if not expected or sum(len(part) for _, part in expected) > size:
        assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    elif len(expected) == 1:
        assert (status, headers["Content-Range"], body) == (206, f"bytes {expected[0][0]}", expected[0][1])
    else:
        assert status == 206
        assert parts_of(headers, body) == expected


def broken_behind(files, monkeypatch, nbytes: int, error: Exception | None) -> None:
    """Let the source give so many bytes and then fail, or just end."""
    original = files.stream

    async def stream(head, start, stop):
        async for data in original(head, start, min(stop, start + nbytes)):
            yield data
        if error is not None:
            raise error

    monkeypatch.setattr(files, "stream", stream)


@pytest.mark.parametrize(
    "error", [Changed("foo/large", "x"), OSError(5, "secret"), None], ids=["known", "unexpected", "short"]
)
@pytest.mark.parametrize("asked", [None, "bytes=0-2999999", "bytes=0-1999999,2500000-2600000"])
async def test_a_failure_behind_the_first_piece_breaks_off(
    running, files, large, monkeypatch, caplog, error, asked
) -> None:
    broken_behind(files, monkeypatch, WHOLE_BYTES + 5, error)
    with pytest.raises(aiohttp.ClientPayloadError):
        await running.get("/data/foo/large", headers={"Range": asked} if asked else {})
    monkeypatch.undo()
    assert (await running.get("/data/foo/large"))[2] == large
    assert ("Traceback" in caplog.text) == (not isinstance(error, Changed))


@pytest.mark.parametrize("nbytes", [0, 100])
async def test_a_source_that_gives_too_little_is_unavailable(running, files, monkeypatch, nbytes) -> None:
    broken_behind(files, monkeypatch, nbytes, None)
    for target in (QUOTED, QUOTED.replace("/data/", "/api/fetch/") + "?slice_=1:1000"):
        assert (await running.problem(target))[0] == 503


async def test_a_source_that_gives_nothing_of_a_large_file_is_unavailable(
    running, files, large, monkeypatch
) -> None:
    broken_behind(files, monkeypatch, 0, None)
    assert (await running.problem("/data/foo/large"))[0] == 503


async def test_a_client_that_goes_ends_the_stream(running, files, large, monkeypatch) -> None:
    closed = asyncio.Event()

    async def stream(head, start, stop):
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            closed.set()

    monkeypatch.setattr(files, "stream", stream)
    response = await running.session.get(f"{running.url}/data/foo/large")
    await response.content.read(10)
    response.close()
    await asyncio.wait_for(closed.wait(), 5)


async def test_a_failure_before_the_first_piece_is_a_problem(running, files, monkeypatch) -> None:
    from caterva2.errors import Unavailable

    async def stream(head, start, stop):
        raise Unavailable("it is gone", 7)
        yield b""

    monkeypatch.setattr(files, "stream", stream)
    status, problem = await running.problem(QUOTED)
    assert (status, problem["retry_after_s"]) == (503, 7)
    assert (await running.get(QUOTED))[1]["Retry-After"] == "7"
