"""The encoded form of parts of a manifest: MessagePack behind a digest of it, and arrays as bytes.

A bit that flips in it, in transit or on a disk, breaks the seal.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from caterva2.model.extents import DIGEST_BYTES, digest

__all__ = ["FORMAT", "pack", "seal", "unseal", "view"]

FORMAT = 2
"""Version of the encoded form."""


def seal(members: dict[str, Any]) -> bytes:
    """Encode members that MessagePack knows."""
    packed = bytes(msgpack.packb({"format": FORMAT, **members}))
    return digest(packed) + packed


def unseal(data: bytes) -> dict[str, Any]:
    """Return the members of an encoded form.

    Raises
    ------
    ValueError
        If its seal is broken, or it is of another format.
    """
    packed = memoryview(data)[DIGEST_BYTES:]
    if digest(packed) != data[:DIGEST_BYTES]:
        raise ValueError("it is damaged, or of another format: its seal is broken")
    try:
        raw = msgpack.unpackb(packed)
    except Exception as error:  # msgpack raises a dozen types, not all of one base
        raise ValueError(f"not MessagePack: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError("not of this format")
    return raw


def pack(array: npt.NDArray[Any], dtype: str) -> bytes:
    """Return the elements of an array as bytes, in C order."""
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def view(data: bytes, dtype: str) -> npt.NDArray[Any]:
    """Return bytes as a read-only array of one dimension."""
    return np.frombuffer(data, dtype=dtype)
