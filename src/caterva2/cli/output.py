"""Printing: tables that fit a terminal, plain columns for a pipe, JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "counted",
    "human_bytes",
    "human_shape",
    "is_terminal",
    "print_json",
    "print_members",
    "print_table",
    "visible",
    "width",
]

RIGHT = frozenset(
    {
        "size",
        "datasets",
        "bytes",
        "cached",
        "age",
        "extents",
        "wrong",
        "repaired",
        "dropped",
        "unreadable",
        "corrected",
        "rtt",
        "load",
        "requests",
        "rejected",
        "hedged",
    }
)
"""Columns of numbers."""


def is_terminal() -> bool:
    """Whether somebody looks at stdout."""
    return sys.stdout.isatty()


def width() -> int:
    """Return how many characters fit a line: of the terminal, else 80."""
    return shutil.get_terminal_size((80, 24)).columns if is_terminal() else 80


def print_json(value: Any) -> None:  # Any: JSON
    """Print a value as JSON: indented for a reader, on one line for a pipe."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not utf8, allow_nan=False, indent=2 if is_terminal() else None))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under their headings.

    On a terminal it fits the width; in a pipe nothing is cut, and two spaces or more are between columns.
    """
    clean = [[visible(cell) for cell in row] for row in rows]
    if is_terminal():
        _print_rich(columns, clean)
        return
    table = [[column.upper() for column in columns], *clean]
    widths = [max(len(row[n]) for row in table) for n in range(len(columns))]
    for row in table:
        cells = [
            cell.rjust(size) if column in RIGHT else cell.ljust(size)
            for cell, size, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for n, column in enumerate(columns):
        justify: Any = "right" if column in RIGHT else "left"
        table.add_column(column, justify=justify, overflow="fold" if n == 0 else "ellipsis", no_wrap=n > 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_members(value: Mapping[str, Any], indent: int = 0) -> None:
    """Print an object as lines of ``name: value``, inner ones indented."""
    names = [visible(str(name)) for name in value]
    size = max((len(name) for name in names), default=0) + 1
    for name, inner in zip(names, value.values(), strict=True):
        if isinstance(inner, Mapping) and inner:
            print(f"{' ' * indent}{name}:")
            print_members(inner, indent + 2)
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
            print(f"{' ' * indent}{(name + ':').ljust(size)} {visible(text)}")


def counted(count: int, noun: str) -> str:
    """Return a number of things: ``1 dataset``, ``1,200 datasets``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def human_bytes(size: int) -> str:
    """Return a size in bytes with three digits: ``1.23 MB``."""
    if size < 1000:
        return f"{size} B"
    value, unit = float(size), ""
    for unit in ("kB", "MB", "GB", "TB", "PB"):  # noqa: B007 - the last one is used
        value /= 1000
        if value < 999.5:
            break
    return f"{value:.3g} {unit}"


def human_shape(shape: Sequence[int] | None) -> str:
    """Return a shape as ``10 x 20``; nothing where there is none."""
    return "" if shape is None else " x ".join(map(str, shape)) if shape else "()"


def visible(text: str) -> str:
    """Return a text without what would control the terminal: names come from others."""
    return "".join(char if char.isprintable() or char == " " else ascii(char)[1:-1] for char in text)
