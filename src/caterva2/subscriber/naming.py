"""Which published datasets a pattern names."""

from __future__ import annotations

from collections.abc import Sequence

from caterva2.errors import NotFound
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.model.pattern import is_glob, matches

__all__ = ["matching", "named"]


def matching(catalogue: Catalogue, patterns: Sequence[str]) -> list[DatasetPath]:
    """Return the datasets that some patterns name, sorted."""
    return sorted(
        DatasetPath(root.name, name)
        for root in catalogue.roots.values()
        for name in root.entries
        if any(matches(pattern, f"{root.name}/{name}") for pattern in patterns)
    )


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
