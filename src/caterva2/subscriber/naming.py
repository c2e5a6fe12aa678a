"""Which published datasets a pattern names."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

from caterva2.errors import NotFound
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.model.pattern import is_glob, matches
from caterva2.model.root import Root

__all__ = ["matching", "named"]


def matching(catalogue: Catalogue, patterns: Sequence[str]) -> list[DatasetPath]:
    """Return the datasets that some patterns name, sorted."""
    found: list[DatasetPath] = []
    for root in sorted(catalogue.roots.values(), key=attrgetter("name")):
        by_pattern = [_names(root, pattern) for pattern in patterns]
        names = by_pattern[0] if len(by_pattern) == 1 else sorted(set(chain.from_iterable(by_pattern)))
        found += [DatasetPath(root.name, name) for name in names]
    return found


def _names(root: Root, pattern: str) -> list[str]:
    """Return the datasets of a root that a pattern names, sorted; only where they can be it is looked."""
    if pattern == root.name:
        return root.names
    literal = pattern[: next((at for at, char in enumerate(pattern) if is_glob(char)), len(pattern))]
    of_root, slash, begin = literal.partition("/")
    if not (root.name == of_root if slash else root.name.startswith(of_root)):
        return []
    first = bisect_left(root.names, begin)
    stop = bisect_right(root.names, begin, lo=first, key=lambda name: name[: len(begin)])
    return [name for name in root.names[first:stop] if matches(pattern, f"{root.name}/{name}")]


def named(catalogue: Catalogue, pattern: str) -> list[DatasetPath]:
    """Return the datasets that a pattern names, which must not be a slip of the pen.

    Raises
    ------
    NotFound
        If its root does not exist, or it is no glob and there is nothing (a glob may name what comes later).
    """
    root = pattern.partition("/")[0]
    if not is_glob(root):
        catalogue.root(root)
    found = matching(catalogue, [pattern])
    if not found and not is_glob(pattern) and "/" in pattern:
        raise NotFound(pattern, f"there is nothing at {pattern!r}")
    return found
