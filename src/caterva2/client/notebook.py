"""What notebooks show: tables of what is known already, with all of it escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from caterva2.client.picture import draw_grid, draw_share
from caterva2.client.records import RootInfo
from caterva2.client.text import human_bytes, human_shape

__all__ = ["array_html", "client_html", "dataset_html", "group_html"]

MOST_ATTRS = 20
"""Attributes that are shown."""

MOST_TEXT = 100
"""Characters of an attribute that are shown."""

LEFT = 'style="text-align:left"'


def dataset_html(
    title: str, said: Sequence[tuple[str, str]], info: Mapping[str, Any], picture: str = ""
) -> str:
    """Return a table of a dataset.

    Parameters
    ----------
    title : str
    said : sequence of (str, str)
        What its kind has to say: names and values.
    info : dict
        Its metadata: the cache is as it was when they were read.
    picture : str
        HTML that goes beside it.
    """
    rows = [*said, ("version", f"{info['etag']} (generation {info['generation']})")]
    rows += [("modified", str(info["mtime"]))] if info.get("mtime") else []
    share = _cached_share(info)
    if share is not None:
        cached, size = human_bytes(info["cached_bytes"]), human_bytes(info["size"])
        rows.append(("cached", f"{cached} of {size} ({share:.0%})"))
        picture = f"<div>{picture}<div>{draw_share(share)}</div></div>"
    attrs = list((info.get("attrs") or {}).items())
    rows += [(f".attrs[{name!r}]", _short(value)) for name, value in attrs[:MOST_ATTRS]]
    if len(attrs) > MOST_ATTRS:
        rows.append((".attrs", f"and {len(attrs) - MOST_ATTRS} more"))
    return _page(title, rows, picture)


def array_html(title: str, info: Mapping[str, Any]) -> str:
    """Return a table of an array, and a drawing of its chunk grid."""
    shape, chunks, schunk = info["shape"], info["chunks"], info["schunk"]
    said = [
        ("shape", human_shape(shape)),
        ("dtype", str(info["dtype"])),
        ("chunks", human_shape(chunks)),
        ("blocks", human_shape(info["blocks"])),
        ("size", f"{human_bytes(schunk['nbytes'])}, {human_bytes(schunk['cbytes'])} compressed"),
    ]
    return dataset_html(title, said, info, draw_grid(shape, chunks))


def group_html(title: str, path: str, info: RootInfo | None) -> str:
    """Return a table of a root or a directory."""
    rows = [("path", path)]
    if info is not None:
        rows += [
            ("title", info.title),
            ("state", f"{info.state}, {info.freshness}"),
            ("datasets", f"{info.datasets:,}"),
            ("size", human_bytes(info.bytes)),
            ("publisher", info.publisher or ""),
        ]
    return _page(title, [(name, value) for name, value in rows if value], "")


def client_html(url: str) -> str:
    """Return a table of a connection."""
    return _page("Client", [("subscriber", url)], "")


def _cached_share(info: Mapping[str, Any]) -> float | None:
    """Return how much of a dataset was cached; None where nobody caches it."""
    cached, size = info.get("cached_bytes"), info.get("size")
    return None if cached is None or not size else min(1.0, cached / size)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"


def _page(title: str, rows: Sequence[tuple[str, str]], picture: str) -> str:
    cells = "".join(
        f"<tr><th {LEFT}>{escape(name)}</th><td {LEFT}>{escape(value)}</td></tr>" for name, value in rows
    )
    return (
        f'<div><strong>{escape(title)}</strong><div style="display:flex;align-items:center;gap:1.5em">'
        f"<table>{cells}</table>{picture}</div></div>"
    )
