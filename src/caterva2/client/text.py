"""How sizes, shapes and names are written for people."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["human_bytes", "human_shape", "visible"]


def human_bytes(size: int) -> str:
    """Return a size in bytes with three digits: ``1.23 MB``."""
    if size < 1000:
        return f"{size} B"
    value, unit = float(size), ""
    for unit in ("kB", "MB", "GB", "TB", "PB"):  # noqa: B007 - the last one is used
        value /= 1000
        if value < 999.5:
            break
    return f"{value:.3g} {unit}"


def human_shape(shape: Sequence[int] | None) -> str:
    """Return a shape as ``10 x 20``; nothing where there is none."""
    return "" if shape is None else " x ".join(map(str, shape)) if shape else "()"


def visible(text: str) -> str:
    """Return a text without what would control the terminal: names come from others."""
    return "".join(char if char.isprintable() or char == " " else ascii(char)[1:-1] for char in text)
