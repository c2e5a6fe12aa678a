"""Patterns that name datasets: ``foo`` (a whole root), ``foo/x.b2nd``, ``foo/dir1/*``, ``*.b2nd``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from caterva2.errors import InvalidPath
from caterva2.model.path import MAX_PATH_BYTES

__all__ = ["FollowMode", "check_pattern", "is_glob", "matches"]

FollowMode = Literal["meta", "cached", "full"]
"""What of a followed dataset is refreshed at once when it changes: its metadata; that and what was cached of
it before; all of it. In this order: of several patterns that name one, the one that wants most counts."""


def check_pattern(pattern: str) -> str:
    """Return a pattern without its trailing slashes.

    Raises
    ------
    InvalidPath
        If it is empty, absolute, too long, or has a control character.
    """
    trimmed = pattern.rstrip("/")
    if not trimmed or trimmed.startswith("/") or len(trimmed.encode(errors="replace")) > MAX_PATH_BYTES:
        raise InvalidPath(f"{pattern!r} is not a pattern: write foo, foo/x.b2nd or foo/dir1/*")
    if any(ord(char) < 32 or ord(char) == 127 for char in trimmed):
        raise InvalidPath(f"{pattern!r} has a control character")
    return trimmed


def is_glob(pattern: str) -> bool:
    """Return whether a pattern may name what does not exist yet."""
    return any(char in pattern for char in "*?[")


def matches(pattern: str, path: str) -> bool:
    """Return whether a pattern names a dataset.

    Parameters
    ----------
    pattern : str
        ``*`` matches any text, ``/`` included, and so does ``**``; ``?`` matches one character, ``[ab]`` one
        of some. A pattern that is a prefix of the path up to a ``/`` names all that is below it.
    path : str
        ``root/dir/name``.
    """
    return pattern == path or path.startswith(f"{pattern}/") or fnmatchcase(path, pattern)
