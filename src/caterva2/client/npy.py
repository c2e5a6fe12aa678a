"""NumPy's file format ``.npy``, read from a stream into memory that is there already.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Nothing is unpickled: dtypes
with objects are refused.
"""

from __future__ import annotations

import ast
import math
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from caterva2.errors import Caterva2Error

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["read_array", "read_header", "read_into"]

MAGIC = b"\x93NUMPY"

MAX_HEADER_BYTES = 1 << 20

MAX_NBYTES = 1 << 40
"""Largest array that an answer may announce: memory is reserved for it before its elements arrive."""


class Stream(Protocol):
    """Where an answer is read from."""

    def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes, or raise."""
        ...

    def read_into(self, target: memoryview) -> None:
        """Fill a buffer, or raise."""
        ...


def read_header(stream: Stream) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype; the elements follow in the stream, in C order.

    Raises
    ------
    Caterva2Error
        If it is not the header of an array in C order whose elements are plain bytes.
    """
    start = stream.read_exactly(8)
    if start[:6] != MAGIC or start[6] not in (1, 2, 3):
        raise Caterva2Error("the answer is not an array: is that the address of a Caterva2 subscriber?")
    form = "<H" if start[6] == 1 else "<I"
    (length,) = struct.unpack(form, stream.read_exactly(struct.calcsize(form)))
    if length > MAX_HEADER_BYTES:
        raise Caterva2Error(f"the answer has an array header of {length:,} bytes")
    return _parse(stream.read_exactly(length), "utf-8" if start[6] == 3 else "latin-1")


@lru_cache(maxsize=64)
def _parse(header: bytes, encoding: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return what a header says; many answers have the same."""
    import numpy as np

    try:
        said = ast.literal_eval(header.decode(encoding).strip())
        shape, descr = said["shape"], said["descr"]
        dtype = np.lib.format.descr_to_dtype(descr)
        plain = all(type(n) is int and n >= 0 for n in shape) and not said["fortran_order"]
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        raise Caterva2Error(f"the answer has a malformed array header: {error!r}") from error
    if not plain or not isinstance(shape, tuple) or dtype.hasobject:
        raise Caterva2Error("the answer is an array of another kind than was asked for")
    return shape, dtype


def read_into(stream: Stream, target: npt.NDArray[Any]) -> None:
    """Read an array into memory of its shape and dtype.

    Parameters
    ----------
    stream : Stream
    target : ndarray
        Contiguous arrays are filled without a copy.

    Raises
    ------
    Caterva2Error
        If the answer has another shape or dtype.
    Unavailable
        If the answer ends too early.
    """
    import numpy as np

    shape, dtype = read_header(stream)
    same = dtype == target.dtype or (
        dtype.names is not None and dtype.names == target.dtype.names and dtype.itemsize == target.itemsize
    )
    if shape != target.shape or not same:
        raise Caterva2Error(
            f"the answer is an array of {shape} {dtype}, {target.shape} {target.dtype} was asked for"
        )
    direct = target if target.flags.c_contiguous else np.empty(shape, target.dtype)
    _fill(stream, direct)
    if direct is not target:
        target[...] = direct


def read_array(stream: Stream) -> npt.NDArray[Any]:
    """Read an array, whatever its shape and dtype.

    Raises
    ------
    Caterva2Error
        If it is none.
    Unavailable
        If the answer ends too early.
    """
    import numpy as np

    shape, dtype = read_header(stream)
    if math.prod(shape) * dtype.itemsize > MAX_NBYTES:
        raise Caterva2Error(f"the answer announces an array of {shape} {dtype}")
    array = np.empty(shape, dtype)
    _fill(stream, array)
    return array


def _fill(stream: Stream, array: npt.NDArray[Any]) -> None:
    import numpy as np

    if array.nbytes:
        stream.read_into(array.reshape(-1).view(np.uint8).data)
