"""Which form of an answer the client prefers, RFC 9110 section 12.5.1."""

from __future__ import annotations

from typing import Literal

from caterva2.source.maker import CHUNK_TYPE

__all__ = ["MEDIA_TYPES", "SliceForm", "slice_form"]

SliceForm = Literal["cframe", "npy", "raw", "chunk"]
"""``cframe``: a Blosc2 frame; ``npy``: NumPy's file format; ``raw``: the elements in C order; ``chunk``:
these as a Blosc2 chunk, for other services."""

MEDIA_TYPES: dict[SliceForm, str] = {
    "cframe": "application/octet-stream",
    "npy": "application/x-npy",
    "raw": "application/vnd.caterva2.raw",
    "chunk": CHUNK_TYPE,
}


def slice_form(accept: str | None) -> SliceForm:
    """Return the form of a slice that an ``Accept`` header prefers.

    A frame is the default, also where nothing we have is accepted: clients of Blosc2 send what their HTTP
    library does.
    """
    best: tuple[float, SliceForm] = (0.0, "cframe")
    for part in (accept or "").split(","):
        media_type, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = _quality(parameters)
        for form, ours in MEDIA_TYPES.items():
            if media_type == ours and quality > best[0]:
                best = (quality, form)
    return best[1]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
