"""Slices made at another host: asked for in parts, each of them checked against a digest of its own.

A slice has no digests in the manifest: it is not stored anywhere. So the host that made it says with each
part what its digest is (``Content-Digest``, RFC 9530), and that host must be the one that the manifests are
believed from: a root's publisher, which reads it by those manifests. What comes is used, never kept as if it
were stored bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from caterva2.errors import IntegrityError, Unsupported
from caterva2.frame.geometry import geometry_of
from caterva2.frame.made import read_chunk_into
from caterva2.model.manifest import Head
from caterva2.model.parts import Part, cut
from caterva2.model.selection import Selection
from caterva2.source.link import Link
from caterva2.source.planner import level_for, part_bytes_of

__all__ = [
    "CHUNK_TYPE",
    "MadeSlice",
    "SliceMaker",
    "check_digest",
    "content_digest",
    "headers_for",
    "parts_of",
    "query_of",
]

CHUNK_TYPE = "application/vnd.caterva2.chunk"
"""Media type of a part: see `caterva2.frame.made`. Its parameter ``level`` says how hard to compress."""

WANT_DIGEST = {"Want-Content-Digest": "sha-256=1"}

_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,|$)")

Array = npt.NDArray[Any]  # of whatever dtype the dataset has


@dataclass(frozen=True, slots=True)
class MadeSlice:
    """A part of an array as it was sent.

    Attributes
    ----------
    selection : Selection
    parts : sequence of (Part, bytes)
        Which parts of it there are, and each as a Blosc2 chunk.
    """

    selection: Selection
    parts: Sequence[tuple[Part, bytes]]

    @property
    def nbytes(self) -> int:
        """What it takes, in bytes."""
        return sum(len(body) for _, body in self.parts)

    def decode(self, head: Head) -> Array:
        """Return its elements, in increasing order of index, no dimension dropped. Blocking.

        Raises
        ------
        Corrupt
            If a part is not what was asked for.
        """
        out = np.empty(self.selection.counts, geometry_of(head).dtype)
        for part, body in self.parts:
            where: tuple[Any, ...] = (*part.target, ...)  # with ... a view, not a scalar
            read_chunk_into(body, out[where])
        return out


class SliceMaker(Protocol):
    """A host that is believed, and can make slices."""

    @property
    def name(self) -> str:
        """Its URL, without what may be secret in it."""
        ...

    @property
    def link(self) -> Link:
        """What is known of the way to it."""
        ...

    async def make(self, head: Head, selection: Selection) -> MadeSlice:
        """Return a part of an array, made there of exactly that version.

        Parameters
        ----------
        head : Head
        selection : Selection
            Not empty.

        Raises
        ------
        Unsupported
            If the host is of another release, that makes none or none with a digest.
        IntegrityError
            If what came is not what its digest says.
        NotFound, Changed, Unavailable, Unauthorized
            As for `Source.read`.
        """
        ...


def parts_of(head: Head, selection: Selection) -> list[Part]:
    """Return the parts in which a slice is asked for."""
    geometry = geometry_of(head)
    itemsize = geometry.dtype.itemsize
    part_bytes = part_bytes_of(selection.size * itemsize)
    return cut(selection, geometry.grid.chunks, itemsize, part_bytes)


def query_of(selection: Selection) -> str:
    """Return the parameter that asks for a part."""
    return f"slice_={quote(str(selection).replace(' ', ''), safe=':,')}"


def headers_for(link: Link, nbytes: int) -> dict[str, str]:
    """Return what else the requests for a slice of `nbytes` say."""
    return {"Accept": f"{CHUNK_TYPE};level={level_for(link.bytes_per_s, nbytes)}", **WANT_DIGEST}


def content_digest(data: bytes) -> str:
    """Return the value of ``Content-Digest`` of a body (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def check_digest(value: str | None, body: bytes, head: Head, name: str) -> None:
    """Check a body against its ``Content-Digest``.

    Raises
    ------
    Unsupported
        If there is none.
    IntegrityError
        If it is another.
    """
    match = _SHA256.search(value or "")
    if match is None:
        raise Unsupported(f"{name} makes no slices that can be checked")
    if content_digest(body) != f"sha-256=:{match[1]}:":
        raise IntegrityError(str(head.path), name, 0, len(body))
