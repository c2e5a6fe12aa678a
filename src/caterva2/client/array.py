"""N-dimensional arrays of which nothing is moved before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from caterva2.client import npy, protocol
from caterva2.client.blocks import BLOCKS, Layout, read_blocks
from caterva2.client.dataset import Dataset
from caterva2.client.described import DescribedArray, dtype_of
from caterva2.client.transport import Body
from caterva2.errors import InvalidSelection, TooLarge, Unsupported
from caterva2.model.grid import ChunkGrid
from caterva2.model.parts import Part, cut
from caterva2.model.selection import Selection, select

if TYPE_CHECKING:
    import dask.array as da
    import numpy as np
    import numpy.typing as npt

__all__ = ["PARALLEL", "PART_BYTES", "Array", "Reading", "indices_of", "selects_points"]

PART_BYTES = 16 * 1024 * 1024
"""What is larger, decoded, is read in parts of about this size, in bytes."""

PARALLEL = 3
"""How many parts of a large read are under way at once, each on a connection of its own."""


@dataclass(frozen=True)
class Reading:
    """A read of one version: where its elements go, and whether they may come as blocks.

    Attributes
    ----------
    info : dict
        Metadata of the version.
    target : ndarray
        Of the counts of the selection.
    blocks : bool
    """

    info: Mapping[str, Any]
    target: npt.NDArray[Any]
    blocks: bool

    @property
    def accept(self) -> str:
        """In which forms the elements may come."""
        return f"{BLOCKS}, {protocol.NPY};q=0.5" if self.blocks else protocol.NPY

    @property
    def layout(self) -> Layout:
        """How they lie in the blocks."""
        shape, chunks, blocks = (tuple(self.info[name]) for name in ("shape", "chunks", "blocks"))
        return _layout(shape, chunks, blocks, self.target.dtype)

    def cut(self, selection: Selection, part_bytes: int) -> list[Part]:
        """Return the parts in which a selection is read."""
        return cut(selection, tuple(self.info["chunks"]), self.target.itemsize, part_bytes)

    def part(self, part: Part) -> npt.NDArray[Any]:
        """Return where a part goes."""
        where: tuple[Any, ...] = (*part.target, ...)  # with ... a view, not a scalar, of 0-d ones
        target: npt.NDArray[Any] = self.target[where]
        return target

    def result(self, selection: Selection) -> npt.NDArray[Any]:
        """Return what was read, in the order and of the shape of the selection."""
        order = tuple(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes)
        return self.target[order].reshape(selection.shape)


class Array(DescribedArray, Dataset):
    """An n-dimensional array at a version.

    ``array[0, 10:20]`` reads that part and gives a numpy array; nothing moves before. Integers, slices with
    steps, negative ones and ``...`` select as in numpy, and so do lists of integers. Every read is of the
    version that was opened, however large it is; `Changed` is raised where the service does not have that any
    more, and `refresh` goes to the current one.
    """

    def __repr__(self) -> str:
        return f"<Array {self.path}: {self.shape} {self.info['dtype']}>"

    # -- reading ---------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:  # Any: what numpy takes, and a numpy array or scalar
        """Read a part, as `numpy.ndarray` gives it.

        Raises
        ------
        InvalidSelection
            If the key selects nothing of this array: too many or out of bounds indices, newaxis, a mask.
        Changed
            If another version was published meanwhile.
        NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        info = self.info
        parts = key if isinstance(key, tuple) else (key,)
        if selects_points(parts):
            return self._points(parts, info)
        array = self._read(select(key, tuple(info["shape"])), info)
        return array[()] if not array.ndim and Ellipsis not in parts else array

    def read(self, selection: Selection) -> npt.NDArray[Any]:
        """Read a selection of this array's shape.

        Returns
        -------
        ndarray
            Of the selection's shape and this array's dtype, zero-dimensional if it has none.

        Raises
        ------
        Changed, NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        return self._read(selection, self.info)

    def _read(self, selection: Selection, info: Mapping[str, Any]) -> npt.NDArray[Any]:
        import numpy as np

        target = np.empty(selection.counts, dtype_of(info))
        blocks = self._transport.decoders.wanted(target.nbytes) and not target.dtype.hasobject
        reading = Reading(info, target, blocks)
        try:
            self._read_parts(selection, reading, PART_BYTES)
        except TooLarge as error:  # the service makes smaller answers than ours
            if not target.itemsize <= error.limit_bytes < PART_BYTES:
                raise
            self._read_parts(selection, reading, error.limit_bytes)
        return reading.result(selection)

    def _read_parts(self, selection: Selection, reading: Reading, part_bytes: int) -> None:
        parts = reading.cut(selection, part_bytes)
        if len(parts) <= 1:
            for part in parts:
                self._read_part(part, reading)
            return
        executor = ThreadPoolExecutor(PARALLEL, "caterva2-read")
        try:
            for done in [executor.submit(self._read_part, part, reading, alone=True) for part in parts]:
                done.result()
        finally:
            executor.shutdown(cancel_futures=True)

    def _read_part(self, part: Part, reading: Reading, *, alone: bool = False) -> None:
        """Read a part, and decode it with the help of other threads or alone."""
        info, selection = reading.info, part.selection
        target = reading.part(part)

        def read(body: Body) -> None:
            if body.headers.get("Content-Type") == BLOCKS:
                read_blocks(body, reading.layout, selection, target, self._transport.decoders, alone=alone)
            else:
                npy.read_into(body, target)

        try:
            self._ask(protocol.ask_selection(self.path, selection, info["etag"], reading.accept), info, read)
        except Unsupported:
            if not reading.blocks:
                raise
            self._ask(protocol.ask_selection(self.path, selection, info["etag"]), info, read)

    def _points(self, parts: tuple[Any, ...], info: Mapping[str, Any]) -> npt.NDArray[Any]:
        request = protocol.ask_points(self.path, indices_of(parts, len(info["shape"])), info["etag"])
        return self._ask(request, info, npy.read_array)

    def to_dask(self, chunks: Any = None) -> da.Array:  # Any: what dask takes as chunks
        """Return a dask array of this version. Nothing is read before it is computed.

        Parameters
        ----------
        chunks : int, tuple or str, optional
            As `dask.array.from_array` has it; by default those of this array, so that none is moved twice.

        Raises
        ------
        ImportError
            Without dask: ``pip install caterva2[dask]``.
        """
        from caterva2.client.dask import to_dask

        return to_dask(self, chunks)

    # -- as numpy sees it ------------------------------------------------------------------------

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read all of it, for ``numpy.asarray(array)``."""
        import numpy as np

        if copy is False:
            raise ValueError("a remote array cannot be had without a copy")
        return np.asarray(self[...], dtype)

    def __iter__(self) -> Iterator[Any]:
        """Yield what ``array[0]``, ``array[1]`` ... are, reading as many at once as chunks are long."""
        for first in range(0, len(self), max(1, self.chunks[0])):
            yield from self[first : first + max(1, self.chunks[0])]


@lru_cache(maxsize=64)
def _layout(
    shape: tuple[int, ...], chunks: tuple[int, ...], blocks: tuple[int, ...], dtype: np.dtype[Any]
) -> Layout:
    return Layout(ChunkGrid(shape, chunks, blocks), dtype)


def selects_points(parts: tuple[Any, ...]) -> bool:  # Any: parts of a key
    """Return whether a key selects by lists of indices."""
    return any(map(_is_list, parts))


def indices_of(parts: tuple[Any, ...], ndim: int) -> list[Any]:  # Any: parts of a key, and their JSON
    """Return a key with lists of indices as the service reads it, a part for each dimension.

    Raises
    ------
    InvalidSelection
    """
    return [_index(part, n) for n, part in enumerate(_without_ellipsis(parts, ndim))]


def _is_list(part: Any) -> bool:
    """Whether a part of a key is a list or an array of indices; without importing numpy for it."""
    return isinstance(part, list) or (hasattr(part, "dtype") and bool(getattr(part, "ndim", 0)))


def _without_ellipsis(parts: tuple[Any, ...], ndim: int) -> list[Any]:
    whole = [n for n, part in enumerate(parts) if part is Ellipsis]
    given = len(parts) - len(whole)
    if len(whole) > 1 or given > ndim:
        raise InvalidSelection(f"too many indices: the array has {ndim} dimensions, {given} were given")
    if not whole:
        return list(parts)
    where = whole[0]
    return [*parts[:where], *[slice(None)] * (ndim - given), *parts[where + 1 :]]


def _index(part: Any, dimension: int) -> Any:  # Any: a part of a key, and its JSON
    """Return a part of a key as the service reads it."""
    import numpy as np

    if isinstance(part, slice):
        bounds = [part.start, part.stop] + ([] if part.step is None else [part.step])
        if any(bound is not None and not hasattr(bound, "__index__") for bound in bounds):
            raise InvalidSelection(f"dimension {dimension}: slice indices must be integers or None")
        return ":".join("" if bound is None else str(int(bound)) for bound in bounds)
    if part is None or isinstance(part, str):
        raise InvalidSelection(f"dimension {dimension}: {part!r} cannot select, integers and slices do")
    try:
        index = np.asarray(part)
    except ValueError as error:
        raise InvalidSelection(f"dimension {dimension}: {error}") from error
    if index.dtype.kind == "b":
        raise InvalidSelection(
            f"dimension {dimension}: masks cannot select; use the indices that numpy.nonzero(mask) gives"
        )
    if index.dtype.kind not in "iu" and index.size:
        raise InvalidSelection(f"dimension {dimension}: {index.dtype} cannot select; use integers")
    return index.tolist()
