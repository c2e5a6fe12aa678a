"""N-dimensional arrays of which nothing is moved before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from caterva2.client import npy, protocol
from caterva2.client.blocks import BLOCKS, Layout, read_blocks
from caterva2.client.chunked import chunk_slices, read_chunks
from caterva2.client.dataset import Dataset
from caterva2.client.described import DescribedArray, dtype_of
from caterva2.client.fields import Fields
from caterva2.client.keys import Fancy, fancy, only_mask, selects_points
from caterva2.client.notebook import array_html
from caterva2.client.points import read_mask, read_points
from caterva2.client.progress import Meter
from caterva2.client.transport import Body
from caterva2.client.underway import UnderWay, run_together
from caterva2.errors import TooLarge, Unsupported
from caterva2.model.grid import ChunkGrid
from caterva2.model.parts import Part, cut
from caterva2.model.selection import Selection, select

if TYPE_CHECKING:
    import dask.array as da
    import numpy as np
    import numpy.typing as npt

__all__ = ["PARALLEL", "PART_BYTES", "POINT_BYTES", "Array", "Reading", "read_dtype"]

PART_BYTES = 16 * 1024 * 1024
"""What is larger, decoded, is read in parts of about this size, in bytes."""

PARALLEL = 3
"""How many parts of a large read are under way at once, each on a connection of its own."""

POINT_BYTES = 4096
"""What is fetched for a point that is asked for by its indices, in bytes, where many are."""


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
    field : str or None
        The field that is read of structured elements; None for all of them.
    """

    info: Mapping[str, Any]
    target: npt.NDArray[Any]
    blocks: bool
    field: str | None = None

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
        itemsize = self.target.itemsize if self.field is None else dtype_of(self.info).itemsize
        return cut(selection, tuple(self.info["chunks"]), itemsize, part_bytes)

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
    steps, negative ones and ``...`` select as in numpy, and so do lists of integers and boolean masks. Every
    read is of the version that was opened, however large it is; `Changed` is raised where the service does
    not have that any more, and `refresh` goes to the current one.
    """

    def __repr__(self) -> str:
        return f"<Array {self.path}: {self.shape} {self.info['dtype']}>"

    def _repr_html_(self) -> str:
        return array_html(f"Array {self.path}", self.info)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.fields)

    # -- reading ---------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:  # Any: what numpy takes, and a numpy array or scalar
        """Read a part, as `numpy.ndarray` gives it. A name gives a field of structured elements, unread.

        Raises
        ------
        InvalidSelection
            If the key selects nothing of this array: too many or out of bounds indices, newaxis, a mask of
            another shape, no field of that name.
        Changed
            If another version was published meanwhile.
        NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        if isinstance(key, str):
            return self.fields[key]
        return self._get(key, self.info)

    @property
    def fields(self) -> Fields:
        """Its fields by name, where its elements are structured; an empty mapping otherwise."""
        return Fields(self)

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

    def _get(self, key: Any, info: Mapping[str, Any], field: str | None = None) -> Any:  # Any: see above
        parts = key if isinstance(key, tuple) else (key,)
        if selects_points(parts):
            reader = _PointReader(self, info, field)
            mask = only_mask(parts)
            return (
                read_points(reader, fancy(parts, reader.shape)) if mask is None else read_mask(reader, mask)
            )
        array = self._read(select(key, tuple(info["shape"])), info, field)
        return array[()] if not array.ndim and Ellipsis not in parts else array

    def _read(
        self,
        selection: Selection,
        info: Mapping[str, Any],
        field: str | None = None,
        *,
        under_way: UnderWay | None = None,
    ) -> npt.NDArray[Any]:
        import numpy as np

        target = np.empty(selection.counts, read_dtype(info, field))
        wanted = self._transport.decoders.wanted(target.nbytes)
        reading = Reading(info, target, wanted and not target.dtype.hasobject and field is None, field)
        with self._transport.meter(self.path, target.nbytes) as meter:
            try:
                self._read_parts(selection, reading, PART_BYTES, meter, under_way)
            except TooLarge as error:  # the service makes smaller answers than ours
                if not target.itemsize <= error.limit_bytes < PART_BYTES:
                    raise
                self._read_parts(selection, reading, error.limit_bytes, meter, under_way)
        return reading.result(selection)

    def _read_parts(
        self,
        selection: Selection,
        reading: Reading,
        part_bytes: int,
        meter: Meter | None,
        under_way: UnderWay | None,
    ) -> None:
        parts = reading.cut(selection, part_bytes)
        if len(parts) <= 1:
            for part in parts:
                self._read_part(part, reading, meter, under_way)
            return

        def read(part: Part, under_way: UnderWay) -> None:
            self._read_part(part, reading, meter, under_way, alone=True)

        look = None if meter is None else meter.look
        run_together(read, parts, PARALLEL, look=look, under_way=under_way)

    def _read_part(
        self,
        part: Part,
        reading: Reading,
        meter: Meter | None,
        under_way: UnderWay | None,
        *,
        alone: bool = False,
    ) -> None:
        """Read a part, and decode it with the help of other threads or alone."""
        info, selection, target = reading.info, part.selection, reading.part(part)

        def read(body: Body) -> None:
            if body.headers.get("Content-Type") == BLOCKS:
                read_blocks(body, reading.layout, selection, target, self._transport.decoders, alone=alone)
            else:
                npy.read_into(body, target)

        def ask(accept: str) -> None:
            request = protocol.ask_selection(self.path, selection, info["etag"], accept, reading.field)
            self._ask(request, info, read, nbytes=target.nbytes, under_way=under_way, meter=meter)

        try:
            ask(reading.accept)
        except Unsupported:
            if not reading.blocks:
                raise
            ask(protocol.NPY)

    def iter_chunks(self, sel: Any = ...) -> Iterator[tuple[slice, ...]]:  # Any: as numpy takes
        """Yield the slices of each chunk, or of what is selected of it, as h5py does. Nothing is read.

        Parameters
        ----------
        sel : int, slice or tuple, optional
            What is selected; all by default. Dimensions that an integer drops stay, one element long.

        Raises
        ------
        InvalidSelection
        """
        return chunk_slices(select(sel, self.shape), self.chunks)

    def read_chunks(self, sel: Any = ...) -> Iterator[tuple[tuple[slice, ...], npt.NDArray[Any]]]:
        """Yield the slices of each chunk and its elements, while the next one is on its way.

        All chunks are of the version that was opened when the first one is read.

        Parameters
        ----------
        sel : int, slice or tuple, optional
            As for `iter_chunks`.

        Raises
        ------
        InvalidSelection, Changed, NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        return read_chunks(self, sel)

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


class _PointReader:
    """Reads points of one version, or of a field of it: a `caterva2.client.points.PointReader`."""

    def __init__(self, array: Array, info: Mapping[str, Any], field: str | None) -> None:
        self._array, self._info, self._field = array, info, field
        self.shape: tuple[int, ...] = tuple(info["shape"])
        self.chunks: tuple[int, ...] = tuple(info["chunks"])
        self.dtype = read_dtype(info, field)

    def box(self, selection: Selection) -> npt.NDArray[Any]:
        return self._array._read(selection, self._info, self._field)

    def points(self, key: Fancy) -> npt.NDArray[Any]:
        path, etag = self._array.path, self._info["etag"]
        request = protocol.ask_points(path, key.indices(), etag, self._field)
        # each point may have to be fetched from far away
        nbytes = POINT_BYTES * max(part.size for part in key.lists.values())
        return self._array._ask(request, self._info, npy.read_array, nbytes=nbytes)


def read_dtype(info: Mapping[str, Any], field: str | None) -> np.dtype[Any]:
    """Return the type of what is read: of elements, or of a field of them."""
    dtype = dtype_of(info)
    return dtype if field is None else dtype[field]


@lru_cache(maxsize=64)
def _layout(
    shape: tuple[int, ...], chunks: tuple[int, ...], blocks: tuple[int, ...], dtype: np.dtype[Any]
) -> Layout:
    return Layout(ChunkGrid(shape, chunks, blocks), dtype)
