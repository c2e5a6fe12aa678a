"""Verbs that take patterns, and say of each how many datasets it names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.output import counted, print_json
from caterva2.errors import ConfigError
from caterva2.model.pattern import FollowMode

__all__ = ["First", "More", "for_each", "mode_of"]

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


def mode_of(*, full: bool, meta: bool) -> FollowMode | None:
    """Return how something is to be followed, by two flags; None if neither is given.

    Raises
    ------
    ConfigError
        If both are.
    """
    if full and meta:
        raise ConfigError("--full and --meta exclude each other")
    return "full" if full else "meta" if meta else None
