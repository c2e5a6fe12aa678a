"""Which form of an answer the client prefers, RFC 9110 section 12.5.1."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from caterva2.source.maker import CHUNK_TYPE

__all__ = ["BLOCKS_TYPE", "MEDIA_TYPES", "SliceForm", "prefers_blocks", "slice_form"]

SliceForm = Literal["cframe", "npy", "raw", "chunk"]
"""``cframe``: a Blosc2 frame; ``npy``: NumPy's file format; ``raw``: the elements in C order; ``chunk``:
these as a Blosc2 chunk, for other services."""

MEDIA_TYPES: dict[SliceForm, str] = {
    "cframe": "application/octet-stream",
    "npy": "application/x-npy",
    "raw": "application/vnd.caterva2.raw",
    "chunk": CHUNK_TYPE,
}


BLOCKS_TYPE = "application/vnd.caterva2.blocks"
"""Blocks as they are stored: a form that not every slice has."""


@lru_cache(maxsize=64)
def slice_form(accept: str | None) -> SliceForm:
    """Return the form of a slice that an ``Accept`` header prefers, blocks as they are stored aside.

    A frame is the default, also where nothing we have is accepted: clients of Blosc2 send what their HTTP
    library does.
    """
    best: tuple[float, SliceForm] = (0.0, "cframe")
    qualities = _qualities(accept or "")
    for media_type, quality in qualities:
        for form, ours in MEDIA_TYPES.items():
            if media_type == ours and quality > best[0]:
                best = (quality, form)
    return best[1]


@lru_cache(maxsize=64)
def prefers_blocks(accept: str | None) -> bool:
    """Return whether an ``Accept`` header prefers blocks as they are stored to all other forms."""
    qualities = _qualities(accept or "")
    blocks = max((quality for media_type, quality in qualities if media_type == BLOCKS_TYPE), default=0.0)
    others = [quality for media_type, quality in qualities if media_type in MEDIA_TYPES.values()]
    return blocks > max(others, default=0.0)


def _qualities(accept: str) -> tuple[tuple[str, float], ...]:
    """Return the media types that a header names, in its order, with their qualities."""
    found = []
    for part in accept.split(","):
        media_type, *parameters = (text.strip().lower() for text in part.split(";"))
        found.append((media_type, _quality(parameters)))
    return tuple(found)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
