"""Opening below a directory, and the status that says whether a file is what it was."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from caterva2.errors import Corrupt
from caterva2.source.files import LocalFile, Walker, open_below, stat_key


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def test_reads_what_is_below(root) -> None:
    with LocalFile(str(root), "a/b/x") as file:
        assert file.read(2, 3) == b"234"
        assert file.read(10, 0) == b""
        assert file.key() == stat_key((root / "a" / "b" / "x").stat())


@pytest.mark.parametrize(
    ("link", "target", "name"),
    [
        ("a/b/out", "../../../secret", "a/b/out"),
        ("a/b/in", "x", "a/b/in"),
        ("a/up", "..", "a/up/a"),
        ("a/dir", "../..", "a/dir/secret"),
    ],
)
def test_no_link_is_followed_on_the_way(root, link, target, name) -> None:
    (root / link).symlink_to(target)
    with pytest.raises(OSError) as caught:
        open_below(str(root), name)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_only_regular_files_and_a_fifo_does_not_block(root) -> None:
    os.mkfifo(root / "fifo")
    for name in ("fifo", "a"):
        with pytest.raises(OSError) as caught:
            open_below(str(root), name)
        assert caught.value.errno == errno.EINVAL


def test_nothing_stays_open_after_an_error(root) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("a/none", "a/b/x/y", "a", "none/at/all"):
        with pytest.raises(OSError):
            open_below(str(root), name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_ends_early_is_corrupt(root) -> None:
    with LocalFile(str(root), "a/b/x") as file:
        for offset, size in ((8, 3), (20, 1), (-1, 2)):
            with pytest.raises(Corrupt):
                file.read(offset, size)


def test_a_replaced_file_is_still_the_old_version_to_who_has_it_open(root, tmp_path) -> None:
    with LocalFile(str(root), "a/b/x") as file:
        key = file.key()
        (tmp_path / "new").write_bytes(b"abcdefghij")
        (tmp_path / "new").replace(root / "a" / "b" / "x")
        assert file.is_still(key)
        assert file.read(0, 3) == b"012"


@pytest.mark.parametrize("how", ["write", "append", "truncate", "touch", "write with the old time"])
def test_a_written_file_is_not_what_it_was(root, how) -> None:
    path = root / "a" / "b" / "x"
    with LocalFile(str(root), "a/b/x") as file:
        key = file.key()
        if how.startswith("write"):
            path.write_bytes(b"abcdefghij")
        elif how == "append":
            with path.open("ab") as more:
                more.write(b"!")
        elif how == "truncate":
            os.truncate(path, 3)
        if how == "touch":
            os.utime(path)
        elif how != "write":
            os.utime(path, ns=(key.mtime_ns, key.mtime_ns))
        assert not file.is_still(key)


def open_files() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else []


def test_a_walker_goes_from_folder_to_folder(root) -> None:
    (root / "top").write_bytes(b"top")
    (root / "a" / "y").write_bytes(b"y")
    (root / "a" / "b" / "z").write_bytes(b"z")
    (root / "a" / "dir").symlink_to("b")
    before = open_files()
    with Walker() as walker:
        for _ in range(2):
            for name, content in (("a/b/x", b"0123456789"), ("a/b/z", b"z"), ("top", b"top"), ("a/y", b"y")):
                with LocalFile(str(root), name, walker) as file:
                    assert file.read(0, len(content)) == content
            for name in ("a/dir/x", "a/none/x", "a/b/none", "a/b"):
                with pytest.raises(OSError):
                    walker.open_below(str(root), name)
    assert open_files() == before
