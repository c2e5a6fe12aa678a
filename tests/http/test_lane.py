"""The short way to the hot routes: all that the framework promises holds there too."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from caterva2.http.lane import _Request

HOT = ["/api/info/", "/api/manifest/", "/data/", "/api/download/", "/api/chunk/", "/api/fetch/"]


@pytest.mark.parametrize("prefix", HOT)
async def test_a_method_that_a_route_does_not_have_is_said_to_be_so(running, prefix) -> None:
    status, problem = await running.problem(f"{prefix}foo/empty", "DELETE")
    assert (status, problem["type"]) == (405, "urn:caterva2:problem:method-not-allowed")


@pytest.mark.parametrize("prefix", HOT)
async def test_what_is_not_there_is_a_problem(running, prefix) -> None:
    assert (await running.problem(f"{prefix}foo/nothing"))[0] == 404
    assert (await running.problem(f"{prefix}foo/%0A"))[0] == 400
    assert (await running.problem(prefix))[0] in (400, 404)


@pytest.mark.parametrize(
    "target", ["/data", "/api/fetch", "/api/", "/", "/dataset/foo/empty", "/api/infos/foo"]
)
async def test_what_only_begins_like_a_hot_route_is_none(running, target) -> None:
    assert (await running.problem(target))[0] == 404


async def test_lines_of_a_header_are_one_list(running) -> None:
    _, headers, _ = await running.get("/data/foo/empty")
    for lines in ([headers["ETag"], '"other"'], ['"other"', headers["ETag"]]):
        sent = [("If-None-Match", line) for line in lines]
        assert (await running.get("/data/foo/empty", headers=sent))[0] == 304


@given(st.text("ab=&;%+2C ,:é\0", max_size=30).map(str.encode))
@example(b"slice_=0:10,5&version=a")
def test_a_query_is_read_as_the_framework_reads_it(text) -> None:
    query = _Request({"type": "http", "query_string": text, "headers": []}).query_params
    assert query.multi_items() == QueryParams(text).multi_items()


def test_of_a_header_that_is_not_there_there_are_no_lines() -> None:
    headers = _Request({"type": "http", "headers": [(b"a", b"1"), (b"a", b"2")]}).headers
    assert (headers.getlist("A"), headers.getlist("b")) == (["1", "2"], [])


async def test_an_unexpected_error_of_a_control_route_is_a_problem(running, files, monkeypatch) -> None:
    monkeypatch.setattr(files.catalogue, "below", None)
    status, problem = await running.problem("/api/list/foo")
    assert status == 500
    assert "NoneType" not in json.dumps(problem)
