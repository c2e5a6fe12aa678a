"""Tables on terminals of some widths, and in pipes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from rich.cells import cell_len

from caterva2.cli.tables import fitting, print_table

pty = pytest.importorskip("pty", reason="Windows has none")

COLUMNS = ("path", "kind", "size", "where", "notes")
ROWS = (
    ("foo/short.b2nd", "array", "1.2 kB", "http://127.0.0.1:8001", ""),
    (
        "foo/日本語のとても長い名前のデータセット-日本語のとても長い名前.b2nd",
        "file",
        "5 B",
        "http://far.example.org:8001",
        "",
    ),
    ("foo/\x1b[31m-a-name-that-would-control-the-terminal", "array", "12.3 MB", "", ""),
)

PRINT = f"from caterva2.cli.tables import print_table; print_table({COLUMNS!r}, {ROWS!r})"


def on_a_terminal(columns: int, script: str = PRINT) -> list[str]:
    """Return the lines that a script shows on a terminal of so many columns."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "dumb"}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the end, on Linux
                break
            if not data:
                break
            shown += data
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode().replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("columns", [200, 100, 80, 60, 40, 25])
def test_it_fits_and_nothing_is_cut(columns) -> None:
    lines = on_a_terminal(columns)
    table = [line for line in lines if not line.startswith("no room for")]
    assert all(cell_len(line) <= columns for line in table), table
    shown = "".join(line.split("  ")[0] for line in table[1:])
    for path, *_ in ROWS:
        visible = path.replace("\x1b", "\\x1b")
        assert visible in shown.replace(" ", ""), "folded, not cut"
    names = " ".join(table[0].split()).lower()
    left_out = [line for line in lines if line.startswith("no room for")]
    missing = [name for name in COLUMNS[:-1] if name not in names]
    assert bool(missing) == bool(left_out)
    assert all(name in left_out[0] for name in missing)
    assert "notes" not in names, "a column without anything takes no room"


def test_a_pipe_gets_all_of_it(capsys) -> None:
    print_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert lines[0].split() == ["PATH", "KIND", "SIZE", "WHERE", "NOTES"]
    assert lines[2].startswith(ROWS[1][0])
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("widths", "line", "fit"),
    [
        ([10, 5, 5], 80, [10, 5, 5]),
        ([10, 5, 0, 5], 80, [10, 5, 0, 5]),
        ([60, 5, 7], 80, [60, 5, 7]),
        ([90, 5, 7], 80, [64, 5, 7]),
        ([90, 5, 40], 80, [35, 5, 36]),
        ([90, 40, 40, 40], 80, [32, 22, 22, 0]),
        ([200], 80, [80]),
        ([30, 30], 10, [10, 0]),
    ],
)
def test_what_fits(widths, line, fit) -> None:
    found = fitting(widths, line)
    assert sum(found) + 2 * (sum(map(bool, found)) - 1) <= line
    assert found == fit


def test_no_rows(capsys) -> None:
    print_table(("path", "size"), [])
    assert capsys.readouterr().out == "PATH  SIZE\n"
