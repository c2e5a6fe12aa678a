"""Arrays as JSON: nested lists of values that JSON has."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["json_values"]


def json_values(array: npt.NDArray[Any]) -> Any:  # Any: JSON
    """Return an array as nested lists, a zero-dimensional one as a value.

    Integers, booleans and text are themselves; NaN, infinities and NaT are null; complex numbers are ``[re,
    im]``; bytes are text in Latin-1; times are ISO 8601, spans of time are integers in the dtype's unit;
    structured elements are objects; raw bytes are base64.
    """
    dtype = array.dtype
    if dtype.names is None and not dtype.isnative:  # np.datetime_as_string takes it for what it is not
        return json_values(array.astype(dtype.newbyteorder("=")))
    if dtype.names is not None:
        fields = {name: json_values(array[name]) for name in dtype.names}
        return _zip(fields, array.ndim, array.shape)
    match dtype.kind:
        case "f":
            return _map(_floats(array).tolist(), lambda x: x if math.isfinite(x) else None)
        case "c":
            parts = np.stack([array.real, array.imag], axis=-1)
            return json_values(parts)
        case "S":
            return _map(array.tolist(), lambda x: x.decode("latin-1"))
        case "M":
            missing = np.isnat(array)
            return _pair(np.datetime_as_string(array).tolist(), missing.tolist())
        case "m":
            return _pair(array.astype(np.int64).tolist(), np.isnat(array).tolist())
        case "V":
            return _map(array.tolist(), lambda x: base64.b64encode(x).decode())
        case _:
            return array.tolist()


def _floats(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the doubles with the shortest decimal form that means the same: 0.1, not 0.10000000149."""
    if array.dtype.itemsize < 8:
        return array.astype("U32").astype(np.float64)
    with np.errstate(over="ignore"):  # of what is wider: JSON has no more either
        return array.astype(np.float64)


def _map(value: Any, function: Any) -> Any:
    return [_map(item, function) for item in value] if isinstance(value, list) else function(value)


def _pair(value: Any, missing: Any) -> Any:
    if isinstance(value, list):
        return [_pair(item, flag) for item, flag in zip(value, missing, strict=True)]
    return None if missing else value


def _zip(fields: dict[str, Any], ndim: int, shape: tuple[int, ...]) -> Any:
    if not ndim:
        return fields
    rows = ({name: values[n] for name, values in fields.items()} for n in range(shape[0]))
    return [_zip(row, ndim - 1, shape[1:]) for row in rows]
