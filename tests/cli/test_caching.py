from __future__ import annotations

import os

import pytest


@pytest.fixture
def cached(cat2):
    """The cube, all of it cached; nothing else is."""
    cat2("cache", "drop", "foo")
    cat2("download", "foo/cube.b2nd")
    return "foo/cube.b2nd"


def flip(running) -> None:
    mirrors = running.cluster.state / "subscriber" / "cache" / "mirrors"
    (file,) = [file for file in mirrors.iterdir() if file.suffix == ".data"]
    with file.open("r+b") as mirror:
        mirror.seek(-1, os.SEEK_END)
        (byte,) = mirror.read(1)
        mirror.seek(-1, os.SEEK_END)
        mirror.write(bytes([byte ^ 1]))


def test_what_is_cached_is_listed(cat2, cached) -> None:
    (row,) = cat2("cache", "ls", "--json")
    assert set(row) == {
        *("path", "etag", "size", "cached_bytes", "complete", "last_used", "pinned", "current"),
    }
    assert (row["path"], row["cached_bytes"], row["complete"]) == (cached, row["size"], True)
    assert (row["pinned"], row["current"]) == (False, True)
    assert cat2("cache", "ls", "foo/c*", "--json") == [row]
    assert cat2("cache", "ls", "foo/dir1", "--json") == []
    assert cached in cat2("cache", "ls")


def test_pins(cat2, cached) -> None:
    assert cat2("cache", "pin", "foo/dir1/*", cached, "--json") == [
        {"pattern": "foo/dir1/*", "datasets": 2},
        {"pattern": cached, "datasets": 1},
    ]
    assert cat2("cache", "ls", "--json")[0]["pinned"]
    assert "pinned" in cat2("cache", "ls")
    cat2("cache", "unpin", "foo/dir1/*", cached)
    assert not cat2("cache", "ls", "--json")[0]["pinned"]
    assert "not pinned" in cat2("cache", "unpin", cached, code=3)
    assert "foo/nothing" in cat2("cache", "pin", "foo/nothing", code=3)


def test_dropping_by_pattern(cat2, cached) -> None:
    cat2("show", "foo/README.md")
    dropped = cat2("cache", "drop", "foo/*.md", "foo/cube.b2nd", "--json")
    assert [row["datasets"] for row in dropped] == [1, 1]
    assert all(row["freed_bytes"] > 0 for row in dropped)
    assert cat2("cache", "ls", "--json") == []


def test_a_slip_of_the_pen_is_told(cat2, running) -> None:
    cat2("cache", "drop", "foo")  # published, though nothing of it may be here
    for verb in ("drop", "ls", "fsck"):
        assert "foo/nothing" in cat2("cache", verb, "foo/nothing", code=3)
    assert "bar" in cat2("cache", "drop", "bar/*", code=3)


def test_a_check_repairs_and_says_so(cat2, cached, running, capsys) -> None:
    from caterva2.cli import main

    assert cat2("cache", "fsck", "--json")["sound"]
    running.wait_for(lambda: running.cluster.subscriber.source.stats.versions == 1)
    flip(running)
    assert main(["cache", "fsck"]) == 1
    out, err = capsys.readouterr()
    assert cached in out
    assert "not as they should be" in err
    found = cat2("cache", "fsck", cached, "--json")
    assert found["sound"]
    assert set(found) == {"sound", "total", "rows"}
    assert found["total"]["bytes"] == found["rows"][0]["bytes"] > 0
    flip(running)
    assert main(["cache", "fsck", "--json"]) == 1
    assert '"wrong": 1' in capsys.readouterr().out


def test_nothing_to_check_is_said(cat2, cached, capsys) -> None:
    from caterva2.cli import main

    assert main(["cache", "fsck", "foo/nothing*"]) == 0
    assert "nothing of that is cached" in capsys.readouterr().err


def test_nonsense_is_a_usage_error(cat2) -> None:
    assert "cat2 cache --help" in cat2("cache", "nonsense", code=2)
    assert "cat2 cache drop --help" in cat2("cache", "drop", code=2)
    assert "foo/../x" in cat2("cache", "ls", "foo/../x", code=2)
    assert "127.0.0.1:1" in cat2("cache", "ls", "--subscriber", "http://127.0.0.1:1", code=5)


def test_help_names_the_verbs_without_importing_them(cat2) -> None:
    assert "cache" in cat2("--help")
    text = cat2("cache", "--help")
    assert all(word in text for word in ("ls", "pin", "unpin", "drop", "fsck"))
