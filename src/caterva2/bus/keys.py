"""How the names of roots and datasets become keys of the bus.

Keys may have ``-/_=.A-Za-z0-9``, and ``.`` separates their tokens. Every other byte of a name's UTF-8, and
``.`` and ``=`` themselves, are written as ``=XX`` with two upper-case hexadecimal digits. A dataset's key is
``<root>.<name>``, each encoded, so that ``<root>.>`` selects a root.
"""

from __future__ import annotations

import re
from functools import lru_cache

from caterva2.errors import InvalidPath
from caterva2.model.path import DatasetPath, check_name, check_root

__all__ = ["data_key", "parse_data_key", "parse_root_key", "root_filter", "root_key"]

_DOT = "=2E"
_UNSAFE = re.compile(rb"[^-/_A-Za-z0-9]")
_TOKEN = re.compile(
    # of what is escaped, only what has to be: there is one way to write a name
    r"(?:[-/_A-Za-z0-9]+|=(?:[018-9A-F][0-9A-F]|2[0-CE]|3[A-F]|40|5[B-E]|60|7[B-F]))*\Z"
)


def _encode(text: str) -> str:
    return _UNSAFE.sub(lambda match: b"=%02X" % match[0][0], text.encode()).decode("ascii")


def _decode(token: str) -> str:
    if not _TOKEN.match(token):
        raise ValueError("not the one way to write it")
    with_dots = token.replace(_DOT, ".")
    if "=" not in with_dots:  # nearly all: it is decoded
        return with_dots
    first, *escaped = token.split("=")
    rest = [bytes.fromhex(part[:2]) + part[2:].encode() for part in escaped]
    return b"".join([first.encode(), *rest]).decode()


@lru_cache(maxsize=1024)
def _decode_root(token: str) -> str:
    return check_root(_decode(token))


def root_key(root: str) -> str:
    """Return the key of a root."""
    return _encode(root)


def root_filter(root: str) -> str:
    """Return the pattern of the keys of a root's datasets."""
    return f"{_encode(root)}.>"


def data_key(root: str, name: str) -> str:
    """Return the key of a dataset."""
    return f"{_encode(root)}.{_encode(name)}"


def parse_root_key(key: str) -> str:
    """Return the root that a key names.

    Raises
    ------
    InvalidPath
        If it is not the key of a root.
    """
    try:
        return _decode_root(key)
    except ValueError as error:
        raise InvalidPath(f"{key!r} is not the key of a root: {error}") from error


def parse_data_key(key: str) -> DatasetPath:
    """Return the dataset that a key names.

    Raises
    ------
    InvalidPath
        If it is not the key of a dataset.
    """
    root, _, name = key.partition(".")
    try:
        root = _decode_root(root)
        return DatasetPath(root, check_name(root, _decode(name)))
    except ValueError as error:
        raise InvalidPath(f"{key!r} is not the key of a dataset: {error}") from error
