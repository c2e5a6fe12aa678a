"""Originals are never written: a directory that cannot be written is published like any other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.testing.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no read-only directories")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A root that nobody can write to: root can only be kept off by a read-only mount."""
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    write_array(root / "dir" / "x.b2nd", np.arange(1000).reshape(20, 50))
    (root / "notes.txt").write_text("kept as it is\n")
    if os.geteuid() != 0:
        _permit(root, directories=0o555, files=0o444)
        yield root
        _permit(root, directories=0o755, files=0o644)
        return
    for options in (["--bind"], ["-o", "remount,ro,bind"]):
        done = subprocess.run(["mount", *options, str(root), str(root)], capture_output=True, check=False)
        if done.returncode:
            subprocess.run(["umount", str(root)], capture_output=True, check=False)
            pytest.skip("root is kept off by a read-only mount alone, and mounting is not permitted here")
    yield root
    subprocess.run(["umount", "--lazy", str(root)], check=True)


def _permit(root: Path, *, directories: int, files: int) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(directories if path.is_dir() else files)


def _snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a root: name, times, content."""
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.stat()
        found[str(path)] = status.st_mtime_ns, status.st_ctime_ns, b"" if path.is_dir() else path.read_bytes()
    return found


def test_a_read_only_directory_is_published_and_left_as_it_was(site, read_only) -> None:
    with pytest.raises(OSError, match=r"denied|Read-only"):
        (read_only / "probe").touch()
    before = _snapshot(read_only)
    _, publisher, _ = site.start_three(read_only)
    wait_until(lambda: site.json("roots") and site.json("roots")[0]["datasets"] == 2)
    assert [row["path"] for row in site.json("list", "foo")] == ["foo/dir/x.b2nd", "foo/notes.txt"]
    assert site.json("show", "foo/dir/x.b2nd[3, 10:12]") == [160, 161]
    saved = site.json("download", "foo/dir/x.b2nd", str(site.directory / "saved"))
    assert Path(saved["file"]).read_bytes() == (read_only / "dir" / "x.b2nd").read_bytes()
    assert publisher.stop() == 0
    assert _snapshot(read_only) == before
