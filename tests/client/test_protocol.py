"""What is asked, and what answers mean, without a network."""

from __future__ import annotations

import json

import pytest

from caterva2 import errors
from caterva2.client import problems, protocol
from caterva2.client.problems import error_of
from caterva2.client.protocol import Reply
from caterva2.http.problems import response_of
from caterva2.model.selection import select

URL = "http://there:8002"


def reply_of(error: errors.Caterva2Error) -> Reply:
    response = response_of(error)
    return Reply(response.status_code, response.headers, bytes(response.body))


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("foo/x.b2nd"),
        errors.NotFound("foo", "there is no root 'foo'"),
        errors.BadRequest("nonsense"),
        errors.InvalidPath("'..' is no path"),
        errors.InvalidSelection("index 7 is out of bounds"),
        errors.InvalidRange("bytes=9- of 5", 5),
        errors.TooLarge(10**12, 10**6, "slice"),
        errors.Changed("foo/x.b2nd", "aa", "bb"),
        errors.Changed("foo/x.b2nd", "aa"),
        errors.Unavailable("the publisher is gone", 7.5),
        errors.Unauthorized("no token"),
        errors.Unsupported("ZFP"),
        errors.Corrupt("cut"),
        errors.IntegrityError("foo/x.b2nd", "http://p", 10, 20),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_service_is_the_same_error_here(error) -> None:
    again = error_of(reply_of(error), URL)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_every_error_can_be_made_of_a_problem_without_its_data() -> None:
    for slug, kind in problems.KINDS.items():
        body = json.dumps({"type": problems.PROBLEM_PREFIX + slug, "detail": "as told"}).encode()
        error = error_of(Reply(500, {}, body), URL)
        assert type(error) is kind
        assert str(error) == "as told"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthorized),
        (403, errors.Unauthorized),
        (404, errors.NotFound),
        (405, errors.Caterva2Error),
        (412, errors.Changed),
        (500, errors.Caterva2Error),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>nginx", b"[1]", b'{"type": "about:blank"}', b"\xff"])
def test_answers_of_others_are_named_with_who_and_what(status, kind, body) -> None:
    error = error_of(Reply(status, {"Retry-After": "9"}, body), URL)
    assert type(error) is kind
    assert URL in str(error)
    assert str(status) in str(error)
    if kind is errors.Unavailable:
        assert error.retry_after_s == 9


@pytest.mark.parametrize("retry_after_s", ["soon", -1, None])
def test_bad_data_of_an_error_does_not_hide_it(retry_after_s) -> None:
    body = json.dumps(
        {"type": problems.PROBLEM_PREFIX + "unavailable", "detail": "gone", "retry_after_s": retry_after_s}
    ).encode()
    assert error_of(Reply(503, {}, body), URL).retry_after_s == 2.0
    body = json.dumps(
        {"type": problems.PROBLEM_PREFIX + "too-large", "detail": "big", "nbytes": "x"}
    ).encode()
    assert str(error_of(Reply(413, {}, body), URL)) == "big"


def test_paths_are_percent_encoded() -> None:
    assert protocol.ask_info("foo/é #?%&+ x.b2nd").target == "/api/info/foo/%C3%A9%20%23%3F%25%26%2B%20x.b2nd"
    assert protocol.dataset_url(URL, "foo/a b") == f"{URL}/data/foo/a%20b"
    assert protocol.ask_follow("foo/dir [1]/*", "full").target == (
        "/api/follow/foo/dir%20%5B1%5D/%2A?mode=full"
    )
    assert protocol.ask_follow("foo/*", None).target == "/api/unfollow/foo/%2A"
    assert protocol.ask_rows("foo", "é&x").target == "/api/catalogue/foo?limit=1000&after=%C3%A9%26x"
    assert protocol.ask_events("foo/é*", None).target == "/api/events?pattern=foo%2F%C3%A9%2A"


@pytest.mark.parametrize("path", ["foo/../x", "/foo/x", "foo//x", "foo/\0", "", "foo", "foo/./x", "fo o/x"])
def test_paths_that_are_none_are_not_sent(path) -> None:
    with pytest.raises(errors.InvalidPath):
        protocol.ask_info(path)


def test_a_selection_is_asked_for_by_its_text_and_version() -> None:
    request = protocol.ask_selection("foo/x", select((1, slice(2, 9, 3)), (5, 20)), "ab")
    assert request.target == "/api/fetch/foo/x?slice_=1,2:9:3&version=ab"
    assert request.headers == {"Accept": "application/x-npy", "If-Match": '"ab"'}
    assert protocol.ask_selection("foo/x", select((), ()), None).target == "/api/fetch/foo/x"


def test_the_url_of_a_version_names_it() -> None:
    assert protocol.dataset_url("http://a", "foo/é x") == "http://a/data/foo/%C3%A9%20x"
    assert protocol.dataset_url("http://a", "foo/x", "a&b") == "http://a/data/foo/x?version=a%26b"


def test_long_lists_of_indices_go_as_a_body() -> None:
    short = protocol.ask_points("foo/x", [[1, 2], "3:9", None], "ab")
    target = "/api/fetch/foo/x?indices=[[1,2],%223:9%22,null]&version=ab"
    assert (short.method, short.target) == ("GET", target)
    long = protocol.ask_points("foo/x", [list(range(5000))], "ab")
    assert (long.method, long.target) == ("POST", "/api/fetch/foo/x?version=ab")
    assert json.loads(long.body) == {"indices": [list(range(5000))]}
    assert long.idempotent
    assert not protocol.ask_follow("foo", "meta").idempotent


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b'{"foo": 1}', b"\xff\xfe"])
def test_what_is_no_answer_of_ours_says_so(body) -> None:
    reply = Reply(200, {}, body)
    for read in (protocol.read_rows, protocol.read_info, protocol.read_followed):
        with pytest.raises(errors.Caterva2Error, match="Caterva2 subscriber"):
            read(reply)
    if body != b"[]":
        with pytest.raises(errors.Caterva2Error, match="Caterva2 subscriber"):
            protocol.read_roots(reply)
