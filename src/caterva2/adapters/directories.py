"""The arrays of directories: which there are, and opening several at a time."""

from __future__ import annotations

from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from caterva2.client import Array, Directory, Root

__all__ = ["SUFFIX", "arrays_below", "open_arrays", "stem"]

SUFFIX = ".b2nd"

AT_ONCE = 8
"""How many arrays are opened at a time: each is a request."""


def arrays_below(directory: Directory | Root) -> dict[str, list[str]]:
    """Return the names of the arrays in a directory, by directories: ``/`` is itself, ``/dir1`` one in it.

    Raises
    ------
    NotFound, Unavailable, Unauthorized
    """
    found: dict[str, list[str]] = {}
    for row in directory.list():
        if row.kind == "array":
            name = row.path.removeprefix(f"{directory.path}/")
            found.setdefault(str(PurePosixPath("/", name).parent), []).append(name)
    return found


def open_arrays(
    directory: Directory | Root, names: list[str], without: Container[str] = ()
) -> dict[str, Array]:
    """Return arrays of a directory, by what they are called without the suffix of their files.

    Parameters
    ----------
    directory : Directory or Root
    names : list of str
        As `arrays_below` has them.
    without : container of str
        Some that are to be left out, without the suffix.

    Raises
    ------
    NotFound, Unavailable, Unauthorized
    """
    wanted = [name for name in names if stem(name) not in without]
    with ThreadPoolExecutor(AT_ONCE, "caterva2-open") as executor:
        opened = list(executor.map(directory.__getitem__, wanted))
    return {stem(one.path): one for one in opened if isinstance(one, Array)}  # it was when it was listed


def stem(path: str) -> str:
    """Return the name of a file without the suffix of arrays."""
    return PurePosixPath(path).name.removesuffix(SUFFIX)
