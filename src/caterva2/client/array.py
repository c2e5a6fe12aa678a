"""N-dimensional arrays of which nothing is moved before it is asked for."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from caterva2.client import npy, protocol
from caterva2.client.dataset import Dataset
from caterva2.client.protocol import PART_BYTES
from caterva2.client.transport import BrokenOff, Transport
from caterva2.errors import InvalidSelection, TooLarge, Unsupported
from caterva2.model.parts import Part, cut
from caterva2.model.selection import Selection, select

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Array"]

PARALLEL = 2
"""How many parts of a large read are under way at once."""


class Array(Dataset):
    """An n-dimensional array at a version.

    ``array[0, 10:20]`` reads that part and gives a numpy array; nothing moves before. Integers, slices with
    steps, negative ones and ``...`` select as in numpy, and so do lists of integers. Every read is of one
    version, however large it is: `Changed` is raised if another one was published, and `refresh` opens it.

    Attributes
    ----------
    shape, chunks, blocks : tuple of int
        Elements along each dimension: of the array, of a chunk, of a block.
    """

    def __init__(self, transport: Transport, info: Mapping[str, Any]) -> None:
        super().__init__(transport, info)
        self.shape: tuple[int, ...] = tuple(info["shape"])
        self.chunks: tuple[int, ...] = tuple(info["chunks"])
        self.blocks: tuple[int, ...] = tuple(info["blocks"])

    # -- what it is ------------------------------------------------------------------------------

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements.

        Raises
        ------
        Unsupported
            If this version of NumPy does not know it.
        """
        import numpy as np

        text: str = self.info["dtype"]
        try:
            return np.dtype(ast.literal_eval(text) if text[:1] in ("[", "{", "(") else text)
        except (TypeError, ValueError, SyntaxError) as error:
            raise Unsupported(f"{self.path!r} has elements of {text!r}: {error}") from error

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of its elements in memory, in bytes."""
        return self.size * self.dtype.itemsize

    @property
    def cbytes(self) -> int:
        """Size of its compressed elements, in bytes."""
        return int(self.info["schunk"]["cbytes"])

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

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
        parts = key if isinstance(key, tuple) else (key,)
        if any(_is_list(part) for part in parts):
            return self._points(parts)
        array = self.read(select(key, self.shape))
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
        import numpy as np

        target = np.empty(selection.counts, self.dtype)
        try:
            self._read_parts(selection, target, PART_BYTES)
        except TooLarge as error:  # the service makes smaller answers than ours
            if not self.dtype.itemsize <= error.limit_bytes < PART_BYTES:
                raise
            self._read_parts(selection, target, error.limit_bytes)
        order = tuple(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes)
        return target[order].reshape(selection.shape)

    def _read_parts(self, selection: Selection, target: npt.NDArray[Any], part_bytes: int) -> None:
        parts = cut(selection, self.chunks, self.dtype.itemsize, part_bytes)
        if len(parts) <= 1:
            for part in parts:
                self._read_part(part, target)
            return
        executor = ThreadPoolExecutor(PARALLEL, "caterva2-read")
        try:
            for done in [executor.submit(self._read_part, part, target) for part in parts]:
                done.result()
        finally:
            executor.shutdown(cancel_futures=True)

    def _read_part(self, part: Part, target: npt.NDArray[Any]) -> None:
        request = protocol.ask_selection(self.path, part.selection, self.etag)
        where: tuple[Any, ...] = (*part.target, ...)  # with ... a view, not a scalar, of 0-d ones
        try:
            with self._transport.open(request) as body:
                npy.read_into(body, target[where])
        except BrokenOff:  # perhaps since the array was replaced: then the next answer says so
            with self._transport.open(request) as body:
                npy.read_into(body, target[where])

    def _points(self, parts: tuple[Any, ...]) -> npt.NDArray[Any]:
        indices = [_index(part, n) for n, part in enumerate(_without_ellipsis(parts, self.ndim))]
        with self._transport.open(protocol.ask_points(self.path, indices, self.etag)) as body:
            return npy.read_array(body)

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
