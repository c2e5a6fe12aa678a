"""Names of what is published, looked up with few requests: for hints and for completion."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from caterva2.client import protocol
from caterva2.client.records import Row
from caterva2.client.transport import Transport

__all__ = ["MOST", "names_like", "names_near", "root_names"]

MOST = 200
"""Most names that are looked up."""

PAGES = 8
"""Most requests that are made for them."""

_LAST = "\U0010ffff"
"""Behind every character of a name."""


def root_names(transport: Transport) -> list[str]:
    """Return the names of all roots.

    Raises
    ------
    Caterva2Error
    """
    return [root.name for root in protocol.read_roots(transport.call(protocol.ask_roots()))]


def names_like(transport: Transport, stem: str) -> list[str]:
    """Return the names that begin with a stem, one level of directories deep, up to `MOST`.

    Parameters
    ----------
    transport : Transport
    stem : str
        The beginning of ``root/dir/name``, or of a root.

    Returns
    -------
    list of str
        Whole paths; those of directories and roots end with ``/``.

    Raises
    ------
    Caterva2Error
    """
    root, slash, name = stem.partition("/")
    if not slash:
        return [f"{found}/" for found in root_names(transport) if found.startswith(root)][:MOST]
    level = name.count("/")
    found: dict[str, None] = {}
    after: str | None = _just_before(name)
    for _ in range(PAGES):
        if after is None or len(found) >= MOST:
            break
        rows, after = _page(transport, root, after)
        for relative in (row.path.removeprefix(f"{root}/") for row in rows):
            if not relative.startswith(name):
                if relative > name:
                    return list(found)
                continue
            parts = relative.split("/")
            is_directory = len(parts) > level + 1
            path = "/".join((root, *parts[: level + 1]))
            found[f"{path}/" if is_directory else path] = None
            if is_directory and after is not None:  # to the next page past all that is in there
                after = max(after, "/".join(parts[: level + 1]) + f"/{_LAST}")
    return list(found)[:MOST]


def names_near(transport: Transport, path: str) -> list[str]:
    """Return names that a path that is not there may have been meant to be, the likeliest first.

    Of a directory it is its own; of what is there after all there is none.

    Raises
    ------
    Caterva2Error
    """
    root, _, name = path.partition("/")
    roots = root_names(transport)
    if root not in roots:
        near = get_close_matches(root, roots, n=3)
        return [f"{other}/{name}" if name else other for other in near]
    known = [row.path for row in _some_rows(transport, root)]
    parents = {path[:end] for path in known for end in range(len(path)) if path[end] == "/"} - {root}
    if path in known or path in parents:
        return [path] if path in parents else []
    elsewhere = [other for other in known if other.endswith(f"/{name.rpartition('/')[2]}")]
    return list(
        dict.fromkeys([*elsewhere, *get_close_matches(path, [*known, *sorted(parents)], n=3, cutoff=0.75)])
    )[:3]


def _some_rows(transport: Transport, root: str) -> Iterator[Row]:
    after: str | None = ""
    for _ in range(PAGES):
        if after is None:
            return
        rows, after = _page(transport, root, after)
        yield from rows


def _page(transport: Transport, root: str, after: str) -> tuple[list[Row], str | None]:
    return protocol.read_rows(transport.call(protocol.ask_rows(root, after)))


def _just_before(name: str) -> str:
    """Return what every name with this beginning sorts behind."""
    return name[:-1] + chr(ord(name[-1]) - 1) + _LAST if name else ""
