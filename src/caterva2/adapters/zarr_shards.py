"""The chunks of an array as objects of a Zarr store, made of what is read of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from caterva2.adapters.zarr_layout import Box, Layout
from caterva2.adapters.zarr_metadata import layout_of, stored_dtype
from caterva2.model.selection import select

if TYPE_CHECKING:
    import numpy.typing as npt

    from caterva2.client.asynchronous import AsyncArray

__all__ = ["Shards"]


class Shards:
    """The chunks of an array.

    Attributes
    ----------
    layout : Layout
    nbytes : int
        Size of each, in bytes.

    Raises
    ------
    Unsupported
        If Zarr does not have the type of the elements.
    """

    def __init__(self, array: AsyncArray) -> None:
        self._array = array
        self._dtype = stored_dtype(array)
        self.layout: Layout = layout_of(array)
        self.nbytes = self.layout.data_bytes + self.layout.index_bytes

    def keys(self) -> Iterator[str]:
        """Yield the key of each, below that of the array."""
        for chunk in itertools.product(*map(range, self.layout.chunk_counts)):
            yield "/".join(("c", *map(str, chunk)))

    async def read(self, chunk: Sequence[int], start: int, stop: int) -> bytes:
        """Return bytes of one: only the parts that have them are read.

        Raises
        ------
        Changed, NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        layout = self.layout
        data = await self._data(chunk, start, min(stop, layout.data_bytes))
        if stop <= layout.data_bytes:
            return data
        return data + layout.index(chunk)[max(0, start - layout.data_bytes) : stop - layout.data_bytes]

    async def _data(self, chunk: Sequence[int], start: int, stop: int) -> bytes:
        layout = self.layout
        if start >= stop:
            return b""
        if (start, stop) == (0, layout.data_bytes):
            return layout.in_parts(await self._elements(layout.chunk_box(chunk)))
        pieces = layout.pieces(chunk, start, stop)
        found = await asyncio.gather(*[self._elements(piece.box) for piece in pieces])
        data = b"".join(elements.tobytes() for elements in found)
        skipped = start - pieces[0].start
        return data[skipped : skipped + stop - start]

    async def _elements(self, box: Box) -> npt.NDArray[Any]:
        """Return the elements in a box, zeros where it goes beyond the array."""
        shape = self.layout.shape
        inside = tuple(
            slice(part.start, min(part.stop, length)) for part, length in zip(box, shape, strict=True)
        )
        whole = np.zeros([part.stop - part.start for part in box], self._dtype)
        if all(part.start < part.stop for part in inside):
            found = await self._array.read(select(inside, shape))
            if found.shape == whole.shape:
                return np.ascontiguousarray(found, self._dtype).reshape(whole.shape)
            whole[tuple(slice(0, n) for n in found.shape)] = found
        return whole
