"""Blosc2, imported when it is first needed: that takes a second. And its decompression of chunks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["decompress", "decompress_into", "get_ready", "is_ready", "library"]

Scratch = npt.NDArray[np.uint8]


@cache
def library() -> Any:  # Any: the module ships no types
    """Return Blosc2, set up for threads."""
    import blosc2

    blosc2.set_releasegil(True)
    return blosc2


def is_ready() -> bool:
    """Return whether decoding can begin at once; else it imports Blosc2 first, which takes a second."""
    return bool(library.cache_info().currsize)


def get_ready() -> None:
    """Import Blosc2, so that nobody who reads has to wait for it. Blocking, for about a second."""
    library()


def decompress(chunk: bytes | memoryview, scratch: Scratch | None = None) -> memoryview:
    """Decompress a chunk whose header was checked.

    Parameters
    ----------
    chunk : bytes
    scratch : ndarray of uint8, optional
        Memory for what is decoded, used if it is large enough.

    Raises
    ------
    ValueError, RuntimeError
        If it cannot be decompressed.
    """
    # The header is one that was checked: decompress2 takes its word for the size of the result
    nbytes = int.from_bytes(chunk[4:8], "little")
    if scratch is None or len(scratch) < nbytes:
        return memoryview(library().decompress2(chunk, nthreads=1))
    target = scratch[:nbytes]
    decompress_into(chunk, target)
    return target.data


def decompress_into(chunk: bytes | memoryview, target: npt.NDArray[Any]) -> None:
    """Decompress a chunk, whose header was checked, into memory of just that size.

    Raises
    ------
    ValueError, RuntimeError
        If it cannot be decompressed.
    """
    library().decompress2(chunk, dst=target, nthreads=1)
