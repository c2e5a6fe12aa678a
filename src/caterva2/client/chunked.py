"""Going through an array chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

from caterva2.client.underway import UnderWay
from caterva2.model.selection import Axis, Selection, select

if TYPE_CHECKING:
    import numpy.typing as npt

    from caterva2.client.array import Array

__all__ = ["chunk_slices", "read_chunks"]


def chunk_slices(selection: Selection, chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Yield, for each chunk that a selection touches, what is selected of it, in row-major order.

    Dimensions stay that an integer drops, and what is selected backwards comes forwards.
    """
    return product(*(list(_runs(*one)) for one in zip(selection.axes, chunks, strict=True)))


def _runs(axis: Axis, chunk: int) -> Iterator[slice]:
    """Yield what is selected of each chunk along one dimension."""
    first, last = axis.start, axis.stop
    while first < last:
        stop = min(last, (first // chunk + 1) * chunk)
        count = -(-(stop - first) // axis.step)
        yield slice(first, stop, axis.step if axis.step != 1 else None)
        first += count * axis.step


def read_chunks(array: Array, key: Any) -> Iterator[tuple[tuple[slice, ...], npt.NDArray[Any]]]:
    """Yield slices and elements of each chunk; see `caterva2.client.Array.read_chunks`."""
    info = array.info  # one version, whatever happens meanwhile
    shape = tuple(info["shape"])
    slices = chunk_slices(select(key, shape), info["chunks"])
    under_way = UnderWay()
    with ThreadPoolExecutor(1, "caterva2-chunks") as executor:

        def begin(where: tuple[slice, ...]) -> Any:
            return executor.submit(array._read, select(where, shape), info, under_way=under_way)

        try:
            ahead = next(slices, None)
            reading = None if ahead is None else begin(ahead)
            while ahead is not None and reading is not None:
                where, found = ahead, reading.result()
                ahead = next(slices, None)
                reading = None if ahead is None else begin(ahead)
                yield where, found
        finally:  # whoever has enough does not wait for the chunk that is on its way
            under_way.stop()
