"""Listings of roots and of what is in them, page by page."""

from __future__ import annotations

from collections.abc import Iterator

from caterva2.client import protocol
from caterva2.client.completion import MOST_NAMES, QUICK_S, with_directories
from caterva2.client.records import Row
from caterva2.client.transport import Transport
from caterva2.errors import NotFound
from caterva2.model.path import parse_path

__all__ = ["below", "names_below", "names_of_all", "rows_below"]

MOST_ROOTS = 10
"""Roots of which names are offered for completion before one of them is chosen."""


def rows_below(transport: Transport, path: str) -> Iterator[Row]:
    """Yield the datasets of a root or a directory, in the order of their names; each page when it is needed.

    Parameters
    ----------
    transport : Transport
    path : str
        ``root`` or ``root/dir``.

    Raises
    ------
    NotFound
        If there is no such root.
    InvalidPath, Unavailable, Unauthorized
    """
    root, _, directory = path.partition("/")
    after: str | None = f"{directory}/" if directory else ""  # none that begins with it comes before it
    begin = f"{path}/"
    while after is not None:
        rows, after = _page(transport, root, after)
        for row in rows:
            if not row.path.startswith(begin):
                return
            yield row


def below(transport: Transport, path: str) -> list[Row]:
    """Return the datasets of a root or a directory, or the one dataset that a path names.

    Raises
    ------
    NotFound
        If there is no such root, or nothing at or below the path.
    InvalidPath, Unavailable, Unauthorized
    """
    parsed = parse_path(path.rstrip("/"), allow_root=True)
    rows = list(rows_below(transport, str(parsed)))
    if rows or not parsed.name:
        return rows
    rows, _ = _page(transport, parsed.root, protocol.before(parsed.name), 1)
    if not rows or rows[0].path != str(parsed):
        raise NotFound(str(parsed), f"there is nothing at {parsed.name!r} in root {parsed.root!r}")
    return rows


def names_below(transport: Transport, path: str, most: int = MOST_NAMES) -> list[str]:
    """Return names of datasets and directories for completion: quickly, and not all if there are many.

    Raises
    ------
    NotFound, InvalidPath, Unavailable, Unauthorized
    """
    root, _, directory = path.partition("/")
    rows, _ = _page(transport, root, f"{directory}/" if directory else "", most, QUICK_S)
    begin = f"{path}/"
    return with_directories(row.path.removeprefix(begin) for row in rows if row.path.startswith(begin))


def names_of_all(transport: Transport) -> list[str]:
    """Return names of roots, and of what is in them, for completion.

    Raises
    ------
    Unavailable, Unauthorized
    """
    roots = protocol.read_roots(transport.call(protocol.ask_roots(), silence_s=QUICK_S))
    names = [root.name for root in roots]
    for root in names[:MOST_ROOTS]:
        names.extend(f"{root}/{name}" for name in names_below(transport, root, MOST_NAMES // MOST_ROOTS))
    return names


def _page(
    transport: Transport, root: str, after: str, limit: int | None = None, silence_s: float | None = None
) -> tuple[list[Row], str | None]:
    request = protocol.ask_rows(root, after, limit or protocol.PAGE_ROWS)
    return protocol.read_rows(transport.call(request, silence_s=silence_s))
