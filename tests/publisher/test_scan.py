"""What can be published, and what is not."""

from __future__ import annotations

import os
import socket

import pytest
import structlog

from caterva2.publisher.scan import MAX_DEPTH, Scanner, is_hidden
from caterva2.source.files import open_below, stat_key


@pytest.fixture
def scanner(root):
    return Scanner("foo", str(root))


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_regular_files_at_any_depth(root, scanner) -> None:
    names = [
        "x.b2nd",
        "a/b/c/d.txt",
        "a/ü n i ✓.txt",
        "no suffix",
        "a/empty dir/../f",
        "sparse.b2nd/chunk.b2",
    ]
    write(root, *names)
    scan = scanner.scan()
    assert set(scan.files) == {os.path.normpath(name) for name in names}
    for name, found in scan.files.items():
        assert found.file == name
        assert found.key == stat_key((root / name).stat())
    assert scan.directories == {
        str(root / d) for d in ("", "a", "a/b", "a/b/c", "a/empty dir", "sparse.b2nd")
    }


@pytest.mark.parametrize(
    "name", [".x", "x~", "x.part", "X.TMP", "x.swp", "x.crdownload", ".dir/x", "d.part/x", "d/.git/x"]
)
def test_hidden_and_temporary_names_are_not_published(root, scanner, name) -> None:
    write(root, name, "y")
    assert set(scanner.scan().files) == {"y"}
    assert scanner.look([name]).files == {}
    assert any(map(is_hidden, name.split("/")))


@pytest.mark.parametrize("name", [".zarray", "a/.zgroup", "a/b/.zattrs", ".zmetadata"])
def test_the_metadata_of_zarr_directories_is_published(root, scanner, name) -> None:
    write(root, name, ".zattrs.partial", ".zgroups", ".zarr/x")
    assert set(scanner.scan().files) == {name}
    assert set(scanner.look([name]).files) == {name}
    assert scanner.names_of([str(root / name)]) == {name}


def test_what_is_no_file_is_not_published(root, scanner) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
        assert scanner.scan().files == {}
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o020600, os.makedev(1, 3))
        assert scanner.scan().files == {}


def test_names_that_cannot_be_spoken_of_are_not_published(root, scanner) -> None:
    raw = os.fsencode(root)
    for name in (b"bad\xff\xfe", b"new\nline", b"back\\slash", b"del\x7f"):
        os.close(os.open(raw + b"/" + name, os.O_CREAT | os.O_WRONLY))
    deep = root
    for _ in range(5):
        deep = deep / ("d" * 240)
        deep.mkdir()
    (deep / "x").write_text("too long")
    write(root, "good")
    assert set(scanner.scan().files) == {"good"}


def test_links_inside_are_followed_and_resolved(root, scanner) -> None:
    write(root, "data/x", "data/sub/y")
    (root / "link").symlink_to("data/x")
    (root / "dirlink").symlink_to(root / "data" / "sub")
    scan = scanner.scan()
    assert {name: found.file for name, found in scan.files.items()} == {
        "data/x": "data/x",
        "data/sub/y": "data/sub/y",
        "link": "data/x",
        "dirlink/y": "data/sub/y",
    }
    for found in scan.files.values():
        os.close(open_below(str(root), found.file))
    assert scanner.look(["dirlink", "link"]).files.keys() == {"link", "dirlink/y"}
    assert scanner.look(["dirlink/y"]).files["dirlink/y"].file == "data/sub/y"


def test_a_root_that_is_a_link_itself(root, tmp_path) -> None:
    write(root, "a/x")
    (root / "link").symlink_to("a/x")
    (tmp_path / "alias").symlink_to(root)
    assert set(Scanner("foo", str(tmp_path / "alias")).scan().files) == {"a/x", "link"}


def test_links_that_leave_or_lead_nowhere_or_round_are_not_followed(root, scanner, tmp_path) -> None:
    (tmp_path / "outside").mkdir()
    write(tmp_path / "outside", "secret")
    (tmp_path / "root-not").write_text("a name that begins like the root's")
    write(root, "a/b/x", ".hidden/y")
    for link, target in {
        "out": tmp_path / "outside",
        "file": tmp_path / "outside" / "secret",
        "sibling": tmp_path / "root-not",
        "a/nowhere": "none",
        "a/self": "self",
        "a/b/round": root,
        "a/b/up": "..",
        "a/there": root / ".hidden" / "y",
    }.items():
        (root / link).symlink_to(target)
    assert set(scanner.scan().files) == {"a/b/x"}
    for name in ("out", "out/secret", "file", "a/b/up/b/x", "a/b/round/a/b/x", "a/there", "sibling"):
        assert scanner.look([name]).files.keys() <= {"a/b/up/b/x", "a/b/round/a/b/x"}, name


def test_links_to_each_other_end(root, scanner) -> None:
    directories = [f"d{n}" for n in range(6)]
    for one in directories:
        write(root, f"{one}/x")
        for other in directories:
            (root / one / f"to-{other}").symlink_to(root / other)
    files = scanner.scan().files
    assert {f"{one}/x" for one in directories} <= set(files)
    assert len(files) < 6**6


def test_very_deep_directories_end(root, scanner) -> None:
    deep = root
    for _ in range(MAX_DEPTH + 5):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x").write_text("deep")
    write(root, "y")
    assert set(scanner.scan().files) == {"y"}


def test_each_skipped_name_is_said_once(root, scanner) -> None:
    (root / "out").symlink_to("/etc")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            scanner.scan()
        scanner.look(["out"])
    assert [(log["name"], log["reason"]) for log in logs] == [("out", "a link that leaves the root")]


def test_looking_at_names(root, scanner) -> None:
    write(root, "a/x", "a/b/y", "c")
    scanner.scan()
    assert scanner.look(["a", "none", "c"]).files.keys() == {"a/x", "a/b/y", "c"}
    assert scanner.look(["a/b"]).directories == {str(root / "a" / "b")}
    assert scanner.look(["../outside", "a/../c", ""]).files == {}


def test_names_of_paths_also_by_links(root, scanner) -> None:
    write(root, "data/sub/x")
    (root / "all").symlink_to("data")
    (root / "one").symlink_to("data/sub/x")
    scanner.scan()
    assert scanner.names_of([str(root / "data/sub/x")]) == {"data/sub/x", "all/sub/x", "one"}
    assert scanner.names_of([str(root / "data")]) == {"data", "all", "one"}
    assert scanner.names_of([str(root), "/elsewhere", str(root / ".tmp"), f"{root}-not/x"]) == set()


def test_a_missing_directory_is_an_error(root, scanner) -> None:
    root.rmdir()
    with pytest.raises(FileNotFoundError):
        scanner.scan()
    with pytest.raises(FileNotFoundError):
        scanner.look(["x"])
