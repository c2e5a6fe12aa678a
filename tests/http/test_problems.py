from __future__ import annotations

import json

import pytest

from caterva2 import errors
from caterva2.http.problems import response_of

CASES = [
    (errors.NotFound("foo/x"), 404, {"path": "foo/x"}),
    (errors.BadRequest("no"), 400, {}),
    (errors.InvalidPath("no"), 400, {}),
    (errors.InvalidSelection("no"), 400, {}),
    (errors.InvalidRange("no", 7), 416, {"size": 7}),
    (errors.TooLarge(9, 8), 413, {"nbytes": 9, "limit_bytes": 8}),
    (errors.Changed("foo/x", "a", None), 412, {"wanted_etag": "a", "current_etag": None}),
    (errors.Unavailable("no", 1.5), 503, {"retry_after_s": 1.5}),
    (errors.NotCached("no"), 504, {}),
    (errors.Unauthorized("no"), 401, {}),
    (errors.Unsupported("no"), 501, {}),
    (errors.Corrupt("no"), 422, {}),
    (errors.IntegrityError("foo/x", "http://a", 1, 2), 502, {"offset": 1, "size": 2}),
]


@pytest.mark.parametrize(("error", "status", "members"), CASES, ids=lambda value: type(value).__name__)
def test_an_error_is_a_problem_with_its_data(error, status, members) -> None:
    response = response_of(error)
    body = json.loads(response.body)
    assert (response.status_code, response.media_type) == (status, "application/problem+json")
    assert body["type"] == f"urn:caterva2:problem:{error.slug}"
    assert (body["status"], body["detail"]) == (status, str(error))
    assert members.items() <= body.items()


def test_headers_that_belong_to_a_status() -> None:
    assert response_of(errors.InvalidRange("no", 7)).headers["content-range"] == "bytes */7"
    assert response_of(errors.Unavailable("no", 1.2)).headers["retry-after"] == "2"
    assert response_of(errors.Unauthorized("no")).headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("error", [errors.StateInUse("/secret/dir", 7), errors.ConfigError("/secret/dir")])
def test_what_is_no_business_of_a_client_is_not_told(error) -> None:
    response = response_of(error)
    assert response.status_code == 500
    assert b"secret" not in response.body


def test_each_error_has_a_status_that_was_chosen() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__]
    own = {errors.Caterva2Error, errors.BusError, errors.CannotListen, errors.ConfigError, errors.StateInUse}
    assert {type(case[0]) for case in CASES} == set(kinds) - own
