from __future__ import annotations

import json
import time
from urllib.parse import quote


async def test_roots(running, files) -> None:
    roots = json.loads((await running.get("/api/roots"))[2])
    root = files.catalogue.root("foo")
    assert roots == {
        "foo": {
            "name": "foo",
            "state": "online",
            "publisher": "http://127.0.0.1:1",
            "datasets": 7,
            "bytes": root.nbytes,
            "title": "Test",
            "behind": 0,
            "reset_at": None,
            "freshness": "fresh",
            "age_s": 0.0,
            "tiers": 0,
        }
    }


async def test_lists_are_relative(running) -> None:
    async def listed(path: str) -> list[str]:
        return json.loads((await running.get(f"/api/list/{path}"))[2])

    assert "dir/a.b2nd" in await listed("foo")
    assert await listed("foo/dir") == await listed("foo/dir/") == ["a.b2nd"]
    assert await listed("foo/dir/a.b2nd") == ["a.b2nd"]
    assert await listed("foo/empty") == ["empty"]
    for path, status in (
        ("foo/%zz", 400),
        ("foo/%ff", 400),
        ("bar", 404),
        ("foo/nothing", 404),
        ("foo/%2e%2e", 400),
        ("", 400),
    ):
        assert (await running.problem(f"/api/list/{path}"))[0] == status


async def test_listings_say_whether_they_are_current(running, files) -> None:
    for path in ("/api/list/foo", "/api/catalogue/foo"):
        headers = (await running.get(path))[1]
        assert (headers["X-Caterva2-Freshness"], "Age" in headers) == ("fresh", False)
    files.catalogue.doubt("foo", time.time() - 100)
    for path in ("/api/list/foo", "/api/catalogue/foo"):
        headers = (await running.get(path))[1]
        assert headers["X-Caterva2-Freshness"] == "unverified"
        assert 100 <= int(headers["Age"]) < 160


async def test_pages_of_the_catalogue_hold_everything_once(running, files) -> None:
    names = files.catalogue.root("foo").entries
    rows: list[dict] = []
    after: str | None = ""
    while after is not None:
        _, _, body = await running.get(f"/api/catalogue/foo?limit=3&after={quote(after)}")
        page = json.loads(body)
        assert len(page["rows"]) <= 3
        rows += page["rows"]
        after = page["next"]
    assert [row["path"] for row in rows] == [f"foo/{name}" for name in sorted(names)]
    array = next(row for row in rows if row["path"] == "foo/dir/a.b2nd")
    assert (array["shape"], array["dtype"], array["kind"]) == ([60, 50], "int32", "array")
    assert array["error"] is None
    for query in ("limit=0", "limit=x", "limit=99999999"):
        assert (await running.problem(f"/api/catalogue/foo?{query}"))[0] == 400
    assert (await running.problem("/api/catalogue/bar"))[0] == 404


async def test_an_unchanged_catalogue_is_a_304(running, files) -> None:
    _, headers, _ = await running.get("/api/catalogue/foo")
    same = {"If-None-Match": headers["ETag"]}
    assert (await running.get("/api/catalogue/foo", headers=same))[0] == 304
    files.catalogue.apply("foo", "empty", None)
    assert (await running.get("/api/catalogue/foo", headers=same))[0] == 200
