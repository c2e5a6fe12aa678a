from __future__ import annotations

import json
from dataclasses import replace

import msgpack
import pytest

from caterva2.errors import Changed
from caterva2.model.manifest import Head
from caterva2.model.page import Page

BAD_PATHS = [
    "/data/foo/../etc/passwd",
    "/data/foo/%2e%2e/etc/passwd",
    "/data/foo/dir/%2e%2e/%2e%2e/x",
    "/data/foo/a%00b",
    "/data/foo//etc/passwd",
    "/data//etc/passwd",
    "/data/foo/a%5Cb",
    "/data/foo/%ff%fe",
    "/data/foo/%zz",
    "/data/foo/x%2",
    "/data/foo/%",
    "/data/foo/.",
    "/data/foo/",
    "/data/foo",
    "/data/",
    "/data/%2Fetc%2Fpasswd",
    "/data/foo/" + "x" * 3000,
]


ROUTES = ["/data/", "/api/info/", "/api/fetch/", "/api/chunk/", "/api/manifest/", "/api/download/"]


@pytest.mark.parametrize("route", ROUTES)
async def test_bad_paths_are_a_400(running, route) -> None:
    for path in BAD_PATHS:
        status, problem = await running.problem(path.replace("/data/", route, 1))
        assert (status, problem["type"]) == (400, "urn:caterva2:problem:invalid-path"), path


@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_not_there_is_a_404(running, route) -> None:
    for path in ("foo/nothing.b2nd", "bar/x", "foo/dir"):
        status, problem = await running.problem(f"{route}{path}")
        assert (status, problem["path"].split("/")[0]) == (404, path.split("/")[0])


async def test_a_quoted_slash_is_a_slash(running) -> None:
    assert (await running.get("/api/info/foo%2Fdir%2Fa.b2nd"))[0] == 200


async def test_info_has_what_clients_of_blosc2_need(running) -> None:
    _status, headers, body = await running.get("/api/info/foo/dir/a.b2nd")
    info = json.loads(body)
    assert (info["shape"], info["chunks"], info["blocks"], info["dtype"]) == (
        [60, 50],
        [20, 25],
        [5, 5],
        "int32",
    )
    assert info["accept_ranges"] == "bytes"
    assert set(info["schunk"]) >= {
        "cbytes",
        "nbytes",
        "cratio",
        "blocksize",
        "chunksize",
        "nchunks",
        "vlmeta",
    }
    assert isinstance(info["schunk"]["cparams"]["codec"], int)
    assert info["schunk"]["urlpath"] is None
    assert (info["path"], info["kind"], info["freshness"], info["age_s"]) == (
        "foo/dir/a.b2nd",
        "array",
        "fresh",
        0,
    )
    assert headers["ETag"] == f'"{info["etag"]}"'
    assert "/tmp" not in body.decode()


async def test_staleness_is_shown(running, files) -> None:
    files.catalogue.doubt("foo", confirmed_at=1000.0)
    _, headers, body = await running.get("/api/info/foo/dir/a.b2nd")
    assert headers["X-Caterva2-Freshness"] == "unverified"
    assert int(headers["Age"]) > 1e9
    assert json.loads(body)["age_s"] > 1e9
    files.catalogue.root("foo").confirmed_at = None
    _, headers, body = await running.get("/api/info/foo/dir/a.b2nd")
    assert "Age" not in headers
    assert json.loads(body)["age_s"] is None


async def test_manifests(running) -> None:
    _status, headers, body = await running.get("/api/manifest/foo/dir/a.b2nd")
    head = Head.decode(body)
    assert headers["ETag"] == f'"{head.etag}"'
    _, _, body = await running.get("/api/manifest/foo/dir/a.b2nd?pages=0")
    (page,) = (Page.decode(item, head, 0) for item in msgpack.unpackb(body))
    assert len(page) == 6
    for wrong in ("x", "-1", "1-", "0-64", "3-1", ",", ",".join(["0"] * 65)):
        assert (await running.problem(f"/api/manifest/foo/dir/a.b2nd?pages={wrong}"))[0] == 400, wrong
    assert (await running.problem("/api/manifest/foo/dir/a.b2nd?pages=1"))[0] == 404
    same = {"If-None-Match": headers["ETag"]}
    assert (await running.get("/api/manifest/foo/dir/a.b2nd", headers=same))[0] == 304


async def test_pages_that_are_known(running) -> None:
    manifest = "/api/manifest/foo/dir/a.b2nd"
    head = Head.decode((await running.get(manifest))[2])
    whole = (await running.get(f"{manifest}?pages=0"))[2]
    page = Page.decode(msgpack.unpackb(whole)[0], head, 0)
    _, _, body = await running.get(f"{manifest}?pages=0&known={page.content.hex()}")
    assert len(body) < len(whole)
    assert Page.decode(msgpack.unpackb(body)[0], head, 0, page).encode() == page.encode()
    for other in ("", "0" * 32):
        assert (await running.get(f"{manifest}?pages=0&known={other}"))[2] == whole
    for wrong in ("x", "0" * 31, "0" * 33, ",", f"{page.content.hex()},", "G" * 32):
        assert (await running.problem(f"{manifest}?pages=0&known={wrong}"))[0] == 400, wrong


async def test_a_request_without_a_version_waits_for_the_next_one(
    running, files, tmp_path, monkeypatch
) -> None:
    import asyncio

    from caterva2.errors import Changed

    new = tmp_path / "new"
    new.write_bytes(b"new bytes")
    original = files.stream
    old = (await running.get("/data/foo/empty"))[1]["ETag"]

    async def being_replaced(head, start, stop):
        if f'"{head.etag}"' == old:
            raise Changed(str(head.path), head.etag)
        async for data in original(head, start, stop):
            yield data

    (tmp_path / "empty").write_bytes(b"old bytes")
    await files.add(tmp_path / "empty", "empty", 2)
    old = (await running.get("/data/foo/empty"))[1]["ETag"]
    monkeypatch.setattr(files, "stream", being_replaced)
    waiting = asyncio.create_task(running.get("/data/foo/empty"))
    named = await running.problem("/data/foo/empty", headers={"If-Match": old})
    assert named[0] == 412
    assert not waiting.done()
    await files.add(new, "empty", 3)
    assert (await waiting)[2] == b"new bytes"


@pytest.mark.parametrize("posted", [True, False])
async def test_a_posted_question_is_answered_by_the_next_version_too(
    running, files, monkeypatch, posted
) -> None:
    """What was posted is still known when the first version turns out to be gone."""
    original, gone = files.pages, []

    async def pages(head, numbers):
        if not gone:
            gone.append(head.etag)
            entry = files.catalogue.entry(head.path)
            files.catalogue.apply("foo", "dir/a.b2nd", replace(entry, generation=entry.generation + 1))
            raise Changed(str(head.path), head.etag)
        return await original(head, numbers)

    monkeypatch.setattr(files, "pages", pages)
    headers = {"Accept": "application/vnd.caterva2.raw"}
    target = "/api/fetch/foo/dir/a.b2nd"
    if posted:
        status, _, body = await running.get(target, "POST", json={"slice_": "1, 2:4"}, headers=headers)
    else:
        status, _, body = await running.get(f"{target}?slice_=1,2:4", headers=headers)
    assert (status, list(memoryview(body).cast("i"))) == (200, [52, 53])
    assert len(gone) == 1


async def test_what_the_client_has_is_not_sent_again(running) -> None:
    etag = (await running.get("/api/info/foo/dir/a.b2nd"))[1]["ETag"]
    for target in ("info/foo/dir/a.b2nd", "fetch/foo/dir/a.b2nd?slice_=0", "chunk/foo/dir/a.b2nd?nchunk=0"):
        status, headers, body = await running.get(f"/api/{target}", headers={"If-None-Match": etag})
        assert (status, headers["ETag"], body) == (304, etag, b"")
        assert headers["X-Caterva2-Freshness"] == "fresh"


@pytest.mark.parametrize("route", ROUTES)
async def test_every_answer_describes_its_version(running, route) -> None:
    query = "?nchunk=0" if "chunk" in route else ""
    for method in ("GET", "HEAD"):
        status, headers, _ = await running.get(f"{route}foo/dir/a.b2nd{query}", method)
        assert status == 200
        assert headers["ETag"].strip('"').isalnum()
        assert (headers["X-Caterva2-Generation"], headers["X-Caterva2-Freshness"]) == ("1", "fresh")
        assert headers["Cache-Control"] == "private, no-cache"
        assert int(headers["Content-Length"]) > 0
    other = {"If-Match": '"0"'}
    assert (await running.problem(f"{route}foo/dir/a.b2nd{query}", headers=other))[0] == 412


async def test_methods_that_are_not_there(running) -> None:
    for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "POST"):
        assert (await running.problem("/data/foo/empty", method))[0] == 405
        assert (await running.get("/data/foo/empty", method))[1]["Allow"] in ("GET, HEAD", "HEAD, GET")
    assert (await running.problem("/nothing"))[0] == 404
