"""Runs: chunks whose elements are all one value. Those that have no bytes, and those that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from caterva2.errors import Corrupt
from caterva2.frame.chunk import CHUNK_HEADER_BYTES, ChunkHeader, Special, special_chunk
from caterva2.frame.geometry import Geometry, geometry_of
from caterva2.model.extents import ChunkKind
from caterva2.model.manifest import Head
from caterva2.model.page import Page

__all__ = ["NANS", "SPECIAL", "element", "run", "run_value", "stored_special", "stored_value"]

SPECIAL = {ChunkKind.ZEROS: Special.ZEROS, ChunkKind.NANS: Special.NANS, ChunkKind.UNINIT: Special.UNINIT}
"""How a chunk that has no bytes is made, by how it is stored."""

NANS = {4: np.float32("nan").tobytes(), 8: np.float64("nan").tobytes()}
"""What a run of NaN repeats, by the size of its items, in bytes."""


def element(value: bytes, dtype: np.dtype[Any]) -> Any:  # Any: a scalar
    """Return the element that some bytes are."""
    return np.frombuffer(value, dtype=dtype)[0]


def run_value(special: Special, geometry: Geometry) -> bytes:
    """Return the bytes that a run repeats."""
    if special != Special.NANS:
        return b"\0"
    typesize = geometry.header.typesize if geometry.header else 0
    if typesize not in NANS:
        raise Corrupt(f"a chunk of NaN for items of {typesize} bytes")
    return NANS[typesize]


def stored_value(header: ChunkHeader, data: bytes, geometry: Geometry) -> bytes:
    """Return the bytes that a run repeats that is stored as a chunk."""
    if header.special != Special.VALUE:
        return run_value(header.special, geometry)
    value = bytes(data[CHUNK_HEADER_BYTES : header.cbytes])
    if not value or header.nbytes % len(value):
        raise Corrupt(f"a chunk of {header.nbytes:,} bytes that repeats {len(value)} bytes")
    return value


def run(value: bytes, geometry: Geometry, nchunk: int, blocks: Sequence[int]) -> memoryview | bytes:
    """Return the element that is repeated or, where the value is of several elements, the blocks."""
    itemsize, blocksize = geometry.dtype.itemsize, geometry.blocksize
    if itemsize % len(value) == 0:
        return value * (itemsize // len(value))
    nbytes = geometry.chunk_nbytes(nchunk)
    pieces = []
    for block in blocks:
        phase = block * blocksize % len(value)
        size = min(blocksize, nbytes - block * blocksize)
        pieces.append((value * (size // len(value) + 2))[phase : phase + size])
    return memoryview(b"".join(pieces))


def stored_special(head: Head, page: Page, nchunk: int) -> bytes:
    """Return a chunk for one that has no bytes: its header alone.

    Parameters
    ----------
    head, page
        As for `caterva2.frame.decode.decode_blocks`.
    nchunk : int
        Of a chunk of ``ChunkKind.ZEROS``, ``NANS`` or ``UNINIT``.
    """
    geometry = geometry_of(head)
    typesize = geometry.header.typesize if geometry.header else 1
    return special_chunk(
        SPECIAL[page.kind(nchunk)], typesize, geometry.chunk_nbytes(nchunk), geometry.blocksize
    )
