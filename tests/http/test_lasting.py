"""URLs that name a version: their answers can be kept for good, by whoever stands in between."""

from __future__ import annotations

import pytest

A = "foo/dir/a.b2nd"
FOR_GOOD = "max-age=31536000, immutable"

LASTING = [
    f"/data/{A}?",
    f"/api/download/{A}?",
    f"/api/fetch/{A}?slice_=3,4&",
    f"/api/fetch/{A}?indices=%5B%5B1,2%5D%5D&",
    "/api/fetch/foo/f.b2frame?slice_=0:10&",
    "/api/fetch/foo/empty?",
    f"/api/chunk/{A}?nchunk=0&",
    f"/api/manifest/{A}?",
    f"/api/manifest/{A}?pages=0&",
]


async def etag_of(running, target: str) -> str:
    return (await running.get(target))[1]["ETag"].strip('"')


@pytest.mark.parametrize("target", LASTING)
async def test_an_answer_by_a_url_that_names_its_version_can_be_kept_for_good(running, target) -> None:
    plain = await running.get(target)
    etag = plain[1]["ETag"].strip('"')
    status, headers, body = await running.get(f"{target}version={etag}")
    assert (status, headers["ETag"], body) == (200, f'"{etag}"', plain[2])
    assert headers["Cache-Control"] == f"public, {FOR_GOOD}"
    assert "X-Caterva2-Freshness" not in headers  # it would be kept as well
    assert plain[1]["Cache-Control"] == "private, no-cache"
    assert plain[1]["X-Caterva2-Freshness"] == "fresh"
    known = await running.get(f"{target}version={etag}", headers={"If-None-Match": f'"{etag}"'})
    assert (known[0], known[1]["Cache-Control"]) == (304, f"public, {FOR_GOOD}")


@pytest.mark.parametrize("target", LASTING)
async def test_another_version_than_the_one_named_is_a_412_that_nobody_keeps(running, target) -> None:
    etag = await etag_of(running, target)
    for other in ("0", f"{etag}0", "x%2Cy"):
        status, headers, _ = await running.get(f"{target}version={other}")
        assert (status, headers["Cache-Control"]) == (412, "no-store")
    _, problem = await running.problem(f"{target}version=0")
    assert (problem["wanted_etag"], problem["current_etag"]) == ("0", etag)
    insisted = {"If-Match": f'"0", "{etag}"'}
    assert (await running.get(f"{target}version={etag}", headers=insisted))[0] == 200
    assert (await running.get(f"{target}version={etag}", headers={"If-Match": '"0"'}))[0] == 412
    assert (await running.get(f"{target}version=0", headers={"If-Match": f'"{etag}"'}))[0] == 412


@pytest.mark.parametrize("wrong", ["version=", "version=a&version=a", "version=%22a%22", "version=a%0d%0ab"])
async def test_what_is_no_version_is_a_400(running, wrong) -> None:
    assert (await running.problem(f"/data/{A}?{wrong}"))[0] == 400


async def test_ranges_of_a_version_named(running) -> None:
    etag = await etag_of(running, f"/data/{A}")
    target = f"/data/{A}?version={etag}"
    for ranges in ("bytes=0-9", "bytes=0-9,20-29"):
        status, headers, _ = await running.get(target, headers={"Range": ranges})
        assert (status, headers["Cache-Control"]) == (206, f"public, {FOR_GOOD}")
    status, headers, _ = await running.get(target, headers={"Range": "bytes=1000000-"})
    assert (status, headers["Cache-Control"]) == (416, "no-store")
    status, headers, _ = await running.get(target, "HEAD")
    assert (status, headers["Cache-Control"]) == (200, f"public, {FOR_GOOD}")


async def test_what_depends_on_headers_says_so(running) -> None:
    """A slice with a range is other bytes than that range of the slice."""
    for headers in ({}, {"Accept": "application/x-npy"}, {"Range": "bytes=0-9"}):
        answer = await running.get(f"/api/fetch/{A}", headers=headers)
        assert answer[1]["Vary"] == "Accept, Range, Want-Content-Digest"
    assert "Vary" not in (await running.get(f"/data/{A}"))[1]


async def test_metadata_that_changes_with_the_cache_is_not_kept(running) -> None:
    etag = await etag_of(running, f"/api/info/{A}")
    status, headers, _ = await running.get(f"/api/info/{A}?version={etag}")
    assert (status, headers["Cache-Control"]) == (200, "private, no-cache")
    assert (await running.get(f"/api/info/{A}?version=0"))[0] == 412


async def test_a_posted_question_names_its_version_too(running) -> None:
    etag = await etag_of(running, f"/data/{A}")
    target, body = f"/api/fetch/{A}?version=", {"slice_": "0"}
    assert (await running.get(target + etag, "POST", json=body))[0] == 200
    assert (await running.get(target + "0", "POST", json=body))[0] == 412


@pytest.mark.parametrize(
    "token", [{"Authorization": "Bearer correct-horse"}, {"Cookie": "caterva2=correct-horse"}]
)
async def test_with_a_token_only_the_client_itself_keeps_answers(guarded, token) -> None:
    etag = (await guarded.get(f"/data/{A}", headers=token))[1]["ETag"].strip('"')
    _, headers, _ = await guarded.get(f"/data/{A}?version={etag}", headers=token)
    assert headers["Cache-Control"] == f"private, {FOR_GOOD}"
    status, headers, _ = await guarded.get(f"/data/{A}?version={etag}")
    assert (status, headers["Cache-Control"]) == (401, "no-store")


async def test_who_comes_with_credentials_of_a_proxy_shares_no_answer_either(running) -> None:
    etag = await etag_of(running, f"/data/{A}")
    _, headers, _ = await running.get(f"/data/{A}?version={etag}", headers={"Authorization": "Basic eA=="})
    assert headers["Cache-Control"] == f"private, {FOR_GOOD}"
