"""What is known of a version without asking anybody: shared by synchronous and asynchronous datasets."""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from caterva2.errors import Caterva2Error, Unsupported

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Described",
    "DescribedArray",
    "DescribedFile",
    "DescribedFrame",
    "Shaped",
    "dtype_of",
    "nitems_of",
]


class Described:
    """A version of a dataset, of any kind.

    Attributes
    ----------
    path : str
        ``root/dir/name``.
    kind : str
        ``array``, ``frame`` or ``file``.
    info : dict
        All metadata of the version, as ``/api/info`` has it. Not to be changed.
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.info = info  # all that says which version it is: a read takes it once
        self.path: str = info["path"]
        self.kind: str = info["kind"]

    @property
    def etag(self) -> str:
        """Name of the version."""
        return str(self.info["etag"])

    @property
    def generation(self) -> int:
        """Order of the versions of this dataset."""
        return int(self.info["generation"])

    @property
    def mtime(self) -> str:
        """Time of last modification, ISO 8601 in UTC."""
        return str(self.info["mtime"])

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes (variable-length metadata) that were stored with it."""
        return self.info.get("attrs") or {}

    def _goes_to(self, info: Mapping[str, Any]) -> bool:
        """Go to a version, of its metadata; return whether it is another one than before.

        Raises
        ------
        Caterva2Error
            If it is of another kind. Nothing is changed then.
        """
        if info["kind"] != self.kind:
            raise Caterva2Error(f"{self.path!r} was of kind {self.kind} and is of kind {info['kind']} now")
        before, self.info = self.info, info
        return bool(info["etag"] != before["etag"])


class Shaped(ABC):
    """What follows from a shape and a type of elements."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Elements along each dimension."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements."""

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


class DescribedArray(Described, Shaped):
    """A version of an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each dimension."""
        return tuple(self.info["shape"])

    @property
    def chunks(self) -> tuple[int, ...]:
        """Elements of a chunk along each dimension."""
        return tuple(self.info["chunks"])

    @property
    def blocks(self) -> tuple[int, ...]:
        """Elements of a block along each dimension."""
        return tuple(self.info["blocks"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements.

        Raises
        ------
        Unsupported
            If this version of NumPy does not know it.
        """
        return dtype_of(self.info)

    @property
    def cbytes(self) -> int:
        """Size of its compressed elements, in bytes."""
        return int(self.info["schunk"]["cbytes"])

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]


class DescribedFrame(Described):
    """A version of a plain super-chunk."""

    @property
    def typesize(self) -> int:
        """Size of an item, in bytes."""
        return int(self.info["typesize"])

    @property
    def nbytes(self) -> int:
        """Size of its items, in bytes."""
        return int(self.info["nbytes"])

    @property
    def cbytes(self) -> int:
        """Size of the compressed form of its items, in bytes."""
        return int(self.info["cbytes"])

    @property
    def nitems(self) -> int:
        """How many items there are."""
        return nitems_of(self.info)

    def __len__(self) -> int:
        return self.nitems


class DescribedFile(Described):
    """A version of any other file."""

    @property
    def size(self) -> int:
        """Its size, in bytes."""
        return int(self.info["size"])

    @property
    def error(self) -> str | None:
        """Why it is not an array or a frame, if its name promises one."""
        return self.info.get("error")

    def __len__(self) -> int:
        return self.size


def dtype_of(info: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the type of the elements of an array, of its metadata.

    Raises
    ------
    Unsupported
        If this version of NumPy does not know it.
    """
    import numpy as np

    text: str = info["dtype"]
    try:
        return np.dtype(ast.literal_eval(text) if text[:1] in ("[", "{", "(") else text)
    except (TypeError, ValueError, SyntaxError) as error:
        raise Unsupported(f"{info['path']!r} has elements of {text!r}: {error}") from error


def nitems_of(info: Mapping[str, Any]) -> int:
    """Return how many items a frame has, of its metadata."""
    return int(info["nbytes"]) // int(info["typesize"])
