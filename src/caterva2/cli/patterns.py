"""Verbs that take patterns, and say of each how many datasets it names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.output import counted, print_json

__all__ = ["First", "More", "for_each"]

First = Annotated[str, Parameter(name="PATTERN", help="A dataset, a root or a glob: foo, 'foo/dir1/*'.")]
More = Annotated[str, Parameter(help="Further ones.")]


def for_each(patterns: tuple[str, ...], act: Callable[[str], int], word: str, *, json: bool) -> None:
    """Act on patterns one after the other; what was done of them is said at once, or as JSON in the end.

    Parameters
    ----------
    patterns : tuple of str
    act : callable
        Returns how many datasets a pattern names.
    word : str
        What is so then: ``pinned``.
    json : bool
    """
    rows = []
    for pattern in patterns:
        datasets = act(pattern)
        rows.append({"pattern": pattern, "datasets": datasets})
        if not json:
            print(f"{word} {pattern}: {counted(datasets, 'dataset')} now", file=sys.stderr)
    if json:
        print_json(rows)
