"""Arrays as dask sees them: a graph of chunks, of which none is read before it is computed."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dask.array as da

    from caterva2.client.array import Array

__all__ = ["to_dask"]


def to_dask(array: Array, chunks: Any = None) -> da.Array:  # Any: what dask takes as chunks
    """Return a dask array that reads a version; see `caterva2.client.Array.to_dask`."""
    import dask.array
    import numpy as np
    from dask.tokenize import tokenize

    array = copy(array)  # which stays at its version, whatever becomes of the other
    grid = tuple(max(1, chunk) for chunk in array.chunks) if chunks is None else chunks
    made: da.Array = dask.array.from_array(  # type: ignore[no-untyped-call]  # dask is not annotated
        array,
        chunks=grid,
        name=f"caterva2-{tokenize(array, grid)}",
        lock=False,  # reads of several threads are under way at once
        meta=np.empty((0,) * array.ndim, array.dtype),
    )
    return made
