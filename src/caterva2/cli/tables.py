"""Tables: plain columns for a pipe, and as much as fits a terminal. Nothing is cut: cells are folded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len, chop_cells

from caterva2.cli.output import is_terminal, styled, visible, width

__all__ = ["fitting", "print_table"]

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

GAP = 2
"""Spaces between columns."""

LEAST = 20
LEAST_OF_FEW = 12
"""What is not wider is not folded: on a terminal, and on one of less than 60 characters."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under their headings.

    Parameters
    ----------
    columns : sequence of str
        The most important ones first: on a terminal that is too narrow the last are left out, and stderr says
        which. The first one is never. In a pipe all of them are there, each row on a line.
    rows : sequence of sequence of str
    """
    table = [[column.upper() for column in columns], *([visible(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*table, strict=True)]
    if is_terminal():
        filled = [n == 0 or not rows or any(row[n] for row in table[1:]) for n in range(len(columns))]
        widths = fitting([size * has for size, has in zip(widths, filled, strict=True)], width())
    kept = [n for n, size in enumerate(widths) if size]
    for nth, row in enumerate(table):
        folded = [chop_cells(row[n], widths[n]) for n in kept]
        for cells in zip_longest(*folded, fillvalue=""):
            line = (
                (" " * GAP)
                .join(
                    _aligned(cell, widths[n], right=columns[n] in RIGHT)
                    for cell, n in zip(cells, kept, strict=True)
                )
                .rstrip()
            )
            print(styled(line, "bold") if nth == 0 else line)
    left_out = [column for n, column in enumerate(columns) if n not in kept and any(row[n] for row in rows)]
    if left_out:
        print(
            f"no room for: {', '.join(left_out)} (in a pipe, and with --json, all is there)", file=sys.stderr
        )


def fitting(widths: Sequence[int], line: int) -> list[int]:
    """Return how wide columns may be so that they fit a line; 0 for those that are left out.

    Parameters
    ----------
    widths : sequence of int
        How wide they would be; 0 for what is not there.
    line : int
        Characters in a line.
    """
    found = list(widths)
    least = [min(size, LEAST if line >= 60 else LEAST_OF_FEW) for size in found]
    least[0] = min(found[0], line * 2 // 5)  # the names of things: rather all of these than all columns
    last = len(found) - 1
    while last and _total(least) > line:
        found[last] = least[last] = 0
        last -= 1
    found[0] = min(found[0], line)
    while _total(found) > line:
        spare = [size - fewest for size, fewest in zip(found, least, strict=True)]
        if not any(spare):
            break
        widest = max((n for n, more in enumerate(spare) if more > 0), key=lambda n: found[n])
        found[widest] -= 1
    return found


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (sum(map(bool, widths)) - 1)


def _aligned(cell: str, size: int, *, right: bool) -> str:
    space = " " * max(0, size - cell_len(cell))
    return space + cell if right else cell + space
