"""What Zarr is told of arrays and groups: ``zarr.json``."""

from __future__ import annotations

import json
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from zarr.dtype import DataTypeValidationError, data_type_registry

from caterva2.adapters.dimensions import stored_dimensions
from caterva2.adapters.zarr_layout import Layout
from caterva2.client.described import DescribedArray, dtype_of
from caterva2.client.records import Row
from caterva2.errors import Unsupported

__all__ = ["GROUP", "array_json", "is_storable", "layout_of", "stored_dtype"]

GROUP = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode()
"""What is said of a directory."""

_BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}


def stored_dtype(array: DescribedArray) -> np.dtype[Any]:
    """Return the type of the elements as the store has them: little-endian.

    Raises
    ------
    Unsupported
        If NumPy, or Zarr, has no such type.
    """
    dtype = array.dtype.newbyteorder("<")
    _data_type(array.path, dtype)
    return dtype


def is_storable(row: Row) -> bool:
    """Return whether a dataset of a listing is an array of a type that Zarr has."""
    return row.dtype is not None and row.error is None and _is_stored(row.dtype)


@lru_cache(maxsize=256)
def _is_stored(dtype: str) -> bool:
    try:
        _data_type("", dtype_of({"path": "", "dtype": dtype}).newbyteorder("<"))
    except Unsupported:
        return False
    return True


def layout_of(array: DescribedArray) -> Layout:
    """Return how an array is laid out in the store.

    Raises
    ------
    Unsupported
    """
    chunks, blocks = (tuple(max(1, n) for n in sizes) for sizes in (array.chunks, array.blocks))
    return Layout(array.shape, chunks, blocks, stored_dtype(array).itemsize)


def array_json(array: DescribedArray) -> bytes:
    """Return the metadata of an array.

    Raises
    ------
    Unsupported
        If Zarr has no such type of elements.
    """
    layout = layout_of(array)
    data_type, fill_value = _data_type(array.path, stored_dtype(array))
    attributes = dict(array.attrs)
    dimensions = stored_dimensions(attributes, array.ndim)
    if dimensions is not None:
        del attributes[dimensions[0]]
    return json.dumps(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": array.shape,
            "data_type": data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.chunks}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill_value,
            "codecs": [_sharding(layout) if layout.sharded else _BYTES],
            "attributes": attributes,
            "dimension_names": None if dimensions is None else dimensions[1],
        }
    ).encode()


def _sharding(layout: Layout) -> dict[str, Any]:
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": layout.parts,
            "codecs": [_BYTES],
            "index_codecs": [_BYTES],
            "index_location": "end",
        },
    }


def _data_type(path: str, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return what JSON says of a type of elements, and of its zero."""
    try:
        with warnings.catch_warnings():  # of types that Zarr has, but no other implementation of it
            warnings.simplefilter("ignore")
            data_type = data_type_registry.match_dtype(dtype)
            zero = data_type.to_json_scalar(data_type.default_scalar(), zarr_format=3)
            return data_type.to_json(zarr_format=3), zero
    except (ValueError, TypeError, DataTypeValidationError) as error:
        raise Unsupported(f"{path!r} has elements of {dtype}, which Zarr does not have: {error}") from error
