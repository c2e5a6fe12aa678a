"""Directories, as the names of datasets imply them, and what is in them; only what is asked for is listed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from caterva2.client.asynchronous import AsyncClient
from caterva2.client.records import Row
from caterva2.errors import NotFound

__all__ = ["children", "directory_info", "file_info", "find_directory"]

Info = dict[str, Any]
"""What fsspec wants to know of a file or a directory, by name."""

LAST = "\U0010ffff"
"""No name has it: what comes behind it is in another directory."""


def file_info(row: Row) -> Info:
    """Return what is said of a file."""
    return {
        "name": row.path,
        "size": row.size,
        "type": "file",
        "kind": row.kind,
        "etag": row.etag,
        "generation": row.generation,
        "mtime": datetime.fromisoformat(row.mtime),
    }


def directory_info(path: str) -> Info:
    """Return what is said of a directory."""
    return {"name": path, "size": 0, "type": "directory"}


async def find_directory(client: AsyncClient, path: str) -> Info:
    """Return what is said of a root or a directory, if there is one.

    Raises
    ------
    NotFound
        If there is no such root, or nothing below the path.
    InvalidPath, Unavailable, Unauthorized
    """
    root, _, name = path.partition("/")
    prefix = f"{name}/" if name else ""
    rows, _ = await client.page(root, prefix, 1)
    if name and not (rows and rows[0].path.startswith(f"{path}/")):
        raise NotFound(path)
    return directory_info(path)


async def children(client: AsyncClient, path: str) -> AsyncIterator[Row | str]:
    """Yield what is in a root or a directory, and not in one below; nothing if it is none.

    Files are their rows, directories their paths. Directories in which there is much are jumped over.

    Raises
    ------
    NotFound
        If there is no such root.
    InvalidPath, Unavailable, Unauthorized
    """
    root, _, name = path.partition("/")
    prefix = f"{name}/" if name else ""
    below, after = "", prefix
    while after is not None:
        rows, following = await client.page(root, after)
        for row in rows:
            if not row.path.startswith(f"{root}/{prefix}"):
                return
            child, slash, _ = row.path[len(root) + 1 + len(prefix) :].partition("/")
            if not slash:
                yield row
            elif child != below:
                yield f"{path}/{child}"
            below = child if slash else ""
        if following is None:
            return
        after = max(following, f"{prefix}{below}/{LAST}") if below else following
