from __future__ import annotations


def test_roots(cat2, running, root) -> None:
    (row,) = cat2("roots", "--json")
    assert row == {
        "root": "foo",
        "state": "online",
        "datasets": 10,
        "bytes": sum(file.stat().st_size for file in root.rglob("*") if file.is_file()),
        "publisher": running.cluster.publisher.address.url,
        "title": "",
        "behind": 0,
        "reset_at": None,
        "freshness": "fresh",
        "age_s": 0.0,
        "tiers": 0,
    }
    assert "foo" in cat2("roots")


def test_list_has_the_members_that_are_promised(cat2) -> None:
    rows = cat2("list", "foo", "--json")
    names = {"path", "kind", "size", "shape", "dtype", "etag", "generation", "mtime"}
    assert all(set(row) == names for row in rows)
    cube = next(row for row in rows if row["path"] == "foo/cube.b2nd")
    assert (cube["kind"], cube["shape"], cube["dtype"]) == ("array", [40, 50, 60], "float64")
    text = next(row for row in rows if row["path"] == "foo/README.md")
    assert (text["kind"], text["shape"], text["dtype"]) == ("file", None, None)
    assert cat2("list", "--json") == rows
    assert [row["path"] for row in cat2("list", "foo/dir1", "--json")] == [
        "foo/dir1/ds-2d.b2nd",
        "foo/dir1/ds-3d.b2nd",
    ]


def test_a_broken_file_is_listed_with_its_error(cat2, capsys) -> None:
    from caterva2.cli import main

    assert main(["list", "foo"]) == 0
    out, err = capsys.readouterr()
    assert "foo/broken.b2nd" in out
    assert "foo/broken.b2nd is served as bytes only" in err


def test_info_of_a_dataset(cat2) -> None:
    info = cat2("info", "foo/cube.b2nd", "--json")
    assert (info["chunks"], info["blocks"]) == ([10, 25, 30], [5, 5, 10])
    assert info["attrs"] == {"units": "K"}
    assert info["schunk"]["cparams"]["codec"] == 5
    assert info["freshness"] == "fresh"
    assert info["cached_bytes"] >= 0
    assert "cparams" in cat2("info", "foo/cube.b2nd")


def test_info_of_what_is_followed(cat2) -> None:
    assert cat2("info", "--json") == []
    assert cat2("follow", "foo/dir1/*", "foo/ds-1d.b2nd", "--json") == [
        {"pattern": "foo/dir1/*", "datasets": 2},
        {"pattern": "foo/ds-1d.b2nd", "datasets": 1},
    ]
    rows = cat2("info", "--json")
    assert [row["path"] for row in rows] == ["foo/dir1/ds-2d.b2nd", "foo/dir1/ds-3d.b2nd", "foo/ds-1d.b2nd"]
    keys = {"path", "etag", "size", "cached_bytes", "complete", "mode", "freshness", "age_s"}
    assert set(rows[0]) == keys
    assert {row["mode"] for row in rows} == {"cached"}
    cat2("follow", "--full", "--wait", "foo/dir1/*")
    waited = [row for row in cat2("info", "--json") if row["path"].startswith("foo/dir1/")]
    assert waited and all(row["complete"] for row in waited)
    assert "--full" in cat2("follow", "--wait", "foo/dir1/*", code=2)
    cat2("follow", "--meta", "foo/ds-1d.b2nd")
    assert [row["mode"] for row in cat2("info", "--json")] == ["full", "full", "meta"]
    assert "exclude" in cat2("follow", "--full", "--meta", "foo", code=2)
    assert "foo/ds-1d.b2nd" in cat2("info")
    cat2("unfollow", "foo/dir1/*", "foo/ds-1d.b2nd")
    assert cat2("info", "--json") == []
    assert "not followed" in cat2("unfollow", "foo", code=3)


def test_urls(cat2, running) -> None:
    expected = f"{running.url}/data/foo/odd%20%5B1%5D%20%C3%A9.b2nd"
    assert cat2("url", "foo/odd [1] é.b2nd") == expected + "\n"
    assert cat2("url", "foo/odd [1] é.b2nd", "--json") == expected
    etag = cat2("info", "foo/odd [1] é.b2nd", "--json")["etag"]
    assert cat2("url", "foo/odd [1] é.b2nd", "--version") == f"{expected}?version={etag}\n"


def test_errors_name_what_and_what_next(cat2) -> None:
    assert "bar" in cat2("list", "bar", code=3)
    assert "cat2 list" in cat2("info", "foo/nothing", code=3)
    assert "foo/../x" in cat2("info", "foo/../x", code=2)
    assert "127.0.0.1:1" in cat2("roots", "--subscriber", "http://127.0.0.1:1", code=5)
    assert "nonsense" in cat2("roots", "--subscriber", "nonsense", code=2)
    assert "--nothing" in cat2("roots", "--nothing", code=2)


def test_who_is_asked_is_listed(cat2, running) -> None:
    (source,) = cat2("sources", "--json")
    assert set(source) == {
        *(
            "root",
            "url",
            "kind",
            "state",
            "rtt_ms",
            "load",
            "requests",
            "bytes",
            "rejected",
            "hedged",
            "until",
        ),
    }
    assert (source["root"], source["kind"], source["state"]) == ("foo", "origin", "ok")
    assert source["rtt_ms"] is None or source["rtt_ms"] > 0  # probed when it was first seen
    assert source["url"] == running.cluster.publisher.address.url
    assert cat2("sources", "foo", "--json")[0]["url"] == source["url"]
    assert source["url"] in cat2("sources")
    assert "bar" in cat2("sources", "bar", code=3)


def test_trees(cat2, running) -> None:
    text = cat2("tree", "foo/dir1")
    assert text.splitlines()[0] == "foo/dir1"
    assert "── ds-2d.b2nd" in text
    (root,) = cat2("tree", "--json")
    assert root["name"] == "foo"
    assert {"dir1/", "cube.b2nd"} <= {child["name"] for child in root["children"]}
    directory = next(child for child in root["children"] if child["name"] == "dir1/")
    assert [child["name"] for child in directory["children"]] == ["ds-2d.b2nd", "ds-3d.b2nd"]
    assert [root["children"] for root in cat2("tree", "--level", "1", "--json")] == [[]]
    assert cat2("tree", "foo", "--count", "1", "--json")[-1]["name"] == "…"
    assert "cat2 info" in cat2("tree", "foo/cube.b2nd", code=3)
    assert "did you mean 'foo/dir1'" in cat2("tree", "foo/dri1", code=3)
