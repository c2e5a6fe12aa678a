"""Names of datasets: ``root/dir/name``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from caterva2.errors import InvalidPath

__all__ = ["DatasetPath", "Kind", "check_name", "check_root", "kind_of", "parse_path"]

Kind = Literal["array", "frame", "file"]
"""``array``: n-dimensional Blosc2 array; ``frame``: plain Blosc2 super-chunk; ``file``: anything else."""

MAX_PATH_BYTES = 1024
"""Longest name of a dataset, in UTF-8 bytes: it must fit a subject of the bus once it is encoded."""

_ROOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_PART_OF_NO_NAME = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)")
_KINDS: dict[str, Kind] = {".b2nd": "array", ".b2frame": "frame", ".b2": "frame"}


@dataclass(frozen=True, slots=True, order=True)
class DatasetPath:
    """A dataset below a root. Make one with `parse_path`; the parts are valid by then.

    Attributes
    ----------
    root : str
        Name of the root.
    name : str
        Path below the root, with ``/`` between its parts; empty for the root itself.
    """

    root: str
    name: str

    def __str__(self) -> str:
        return f"{self.root}/{self.name}" if self.name else self.root


def check_root(root: str) -> str:
    """Return `root` if it can name a root.

    Raises
    ------
    InvalidPath
        If it is not 1 to 64 letters, digits, ``_``, ``.`` and ``-`` that begin with a letter or a digit.
    """
    if not _ROOT.match(root):
        raise InvalidPath(
            f"{root!r} cannot name a root: use 1 to 64 letters, digits, '_', '.' or '-', "
            "the first a letter or a digit"
        )
    return root


def parse_path(text: str, *, allow_root: bool = False) -> DatasetPath:
    """Parse ``root/dir/name``.

    Parameters
    ----------
    text : str
        The path, decoded (no percent-encoding).
    allow_root : bool
        Accept a bare root as well; the name is then empty.

    Raises
    ------
    InvalidPath
        If a part is empty, ``.`` or ``..``, the path is absolute, has a NUL or another control character,
        a backslash, is not valid Unicode, or is longer than `MAX_PATH_BYTES`.
    """
    root, _, name = text.partition("/")
    if not root:
        raise InvalidPath(f"{text!r} does not begin with the name of a root: write root/dir/name")
    if not name and allow_root:
        return DatasetPath(check_root(root), "")
    return DatasetPath(check_root(root), check_name(root, name))


def check_name(root: str, name: str) -> str:
    """Return `name` if it can name a dataset below a root.

    Raises
    ------
    InvalidPath
        As `parse_path` does, of the name.
    """
    text = f"{root}/{name}"
    try:
        nbytes = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidPath(f"{text!r} is not valid Unicode") from error
    if nbytes > MAX_PATH_BYTES:
        raise InvalidPath(f"a path of {nbytes} bytes is too long, the limit is {MAX_PATH_BYTES}")
    if _FORBIDDEN.search(text):
        raise InvalidPath(f"{text!r} has a control character or a backslash")
    if _PART_OF_NO_NAME.search(name):
        raise InvalidPath(f"{text!r} is not a dataset: write root/dir/name, without empty parts, '.' or '..'")
    return name


def kind_of(name: str) -> Kind:
    """Return the kind of dataset that a file name promises."""
    dot = name.rfind(".")
    return _KINDS.get(name[dot:].lower(), "file") if dot >= 0 else "file"
