"""The metadata within frames: the b2nd metalayer, dtypes, user metadata as JSON, and what is no array.

Format: README_B2ND_METALAYER.rst of C-Blosc2 3.3; the metalayers of other objects are those of python-blosc2.
"""

from __future__ import annotations

import ast
import base64
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import msgpack
import numpy as np

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import parse_chunk_header
from caterva2.frame.layout import metalayers
from caterva2.model.grid import ChunkGrid
from caterva2.model.selection import MAX_NDIM

__all__ = ["B2nd", "json_value", "other_object", "parse_b2nd", "parse_dtype", "vlmeta"]

MAX_DTYPE_CHARS = 64 * 1024
MAX_VLMETA_BYTES = 1024 * 1024
"""User metadata larger than this, in bytes decompressed, is named but not shown."""
MAX_DEPTH = 32
"""User metadata nested deeper than this becomes text."""

_OBJECTS = {
    "vlarray": "an ObjectArray",
    "batcharray": "a BatchArray",
    "b2embed": "an EmbedStore",
    "b2dict": "a DictStore",
    "b2tree": "a TreeStore",
    "proxy-source": "a Proxy cache, which may lack data",
    "LazyArray": "a lazy array",
    "b2o": "a lazy or remote object",
    "ctable": "a CTable",
}
_TUPLE = "__tuple__"  # python-blosc2 marks tuples so
_COMPLEX, _SET, _ARRAY = 44, 45, 46  # extension types of python-blosc2


@dataclass(frozen=True)
class B2nd:
    """The b2nd metalayer: geometry and element type of an array.

    Attributes
    ----------
    shape, chunks, blocks : tuple of int
        As stored; those of empty arrays can have zeros.
    dtype : numpy.dtype
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    dtype: np.dtype[Any]

    @cached_property
    def grid(self) -> ChunkGrid:
        """The grid of the array."""
        return ChunkGrid(
            self.shape, tuple(max(1, c) for c in self.chunks), tuple(max(1, b) for b in self.blocks)
        )

    @cached_property
    def dtype_name(self) -> str:
        """The dtype as `str` spells it."""
        return str(self.dtype)


@lru_cache(maxsize=256)
def parse_b2nd(content: bytes) -> B2nd:
    """Parse the metalayer ``b2nd``: of many small arrays it is the same.

    Raises
    ------
    Corrupt
        If it is malformed or contradicts itself.
    Unsupported
        If it is of another version or the dtype is not one of NumPy's that lie in bytes.
    """
    try:
        version, ndim, shape, chunks, blocks, *rest = msgpack.unpackb(content)
        shape, chunks, blocks = tuple(shape), tuple(chunks), tuple(blocks)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Corrupt(f"the b2nd metalayer is malformed: {error!r}") from error
    if version != 0 or len(rest) < 2 or rest[0] != 0:
        raise Unsupported(f"a b2nd metalayer of version {version!r}, or without a NumPy dtype")
    if not (ndim == len(shape) == len(chunks) == len(blocks)) or ndim > MAX_NDIM:
        raise Corrupt("the b2nd metalayer contradicts itself about the dimensions")
    if any(type(n) is not int or not 0 <= n < 2**63 for n in (*shape, *chunks, *blocks)):
        raise Corrupt("the b2nd metalayer has impossible lengths")
    for length, chunk, block in zip(shape, chunks, blocks, strict=True):
        if block > chunk or (length and not block):
            raise Corrupt(f"the b2nd metalayer has blocks of {blocks} in chunks of {chunks}")
    return B2nd(shape, chunks, blocks, parse_dtype(rest[1]))


def parse_dtype(text: Any) -> np.dtype[Any]:  # Any: as MessagePack had it
    """Parse a dtype as frames store it: NumPy's short name, or the literal of a list or dict of fields.

    Raises
    ------
    Corrupt
        If NumPy does not know it.
    Unsupported
        If its elements are Python objects or have no bytes.
    """
    if not isinstance(text, str) or len(text) > MAX_DTYPE_CHARS:
        raise Corrupt("the dtype of the array is not a text, or much too long")
    try:
        literal = ast.literal_eval(text) if text.lstrip()[:1] in ("[", "{", "(") else text
        dtype = np.dtype(literal)
    except (TypeError, ValueError, SyntaxError, KeyError, MemoryError, RecursionError) as error:
        raise Corrupt(f"{text[:80]!r} is no dtype: {error}") from error
    if dtype.hasobject or not dtype.itemsize or dtype.subdtype:
        raise Unsupported(f"arrays of dtype {text[:80]!r}: their elements do not lie in bytes of their own")
    return dtype


def other_object(names: Mapping[str, bytes]) -> str | None:
    """Return what a frame holds that is neither an array nor plain items; None if it is one of these.

    Parameters
    ----------
    names : mapping
        The metalayers of the frame.
    """
    for name, what in _OBJECTS.items():
        if name in names:
            return f"{what} (metalayer {name!r})"
    return None


def vlmeta(trailer: bytes) -> dict[str, Any]:
    """Return the user metadata of a frame as JSON values.

    Parameters
    ----------
    trailer : bytes
        As stored.

    Raises
    ------
    Corrupt
        If the trailer is malformed. An entry that cannot be decoded becomes a text that says so.
    """
    return {name: _vlmeta_value(content) for name, content in metalayers(trailer, 2, 8192).items()}


def _vlmeta_value(content: bytes) -> Any:
    import blosc2

    try:
        header = parse_chunk_header(content)
        if header.nbytes > MAX_VLMETA_BYTES:
            return f"<{header.nbytes:,} bytes, not shown>"
        if header.cbytes > len(content):
            raise Corrupt("it is cut")
        packed = blosc2.decompress2(content, nthreads=1) if header.nbytes else b""
    except (Corrupt, ValueError, RuntimeError) as error:
        return f"<cannot be decompressed: {error}>"
    try:
        return json_value(msgpack.unpackb(packed, strict_map_key=False))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return json_value(packed)


def json_value(value: Any, depth: int = 0) -> Any:
    """Return a value of user metadata as JSON.

    What JSON has stays as it is. Tuples and sets become lists, keys text. Bytes become text if they are
    UTF-8, else ``base64:…``. NumPy arrays become nested lists, complex numbers ``[real, imaginary]``; NaN and
    infinities, which JSON lacks, the texts ``NaN``, ``Infinity``, ``-Infinity``; times ISO 8601. Anything
    else becomes its `repr`, or what is deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        return "<nested too deep>"
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray):
        return _text(bytes(value))
    if isinstance(value, complex):
        return [json_value(value.real), json_value(value.imag)]
    if isinstance(value, Mapping):
        return {_key(k): json_value(v, depth + 1) for k, v in value.items()}
    if isinstance(value, msgpack.ExtType):
        return _extension(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        items = [json_value(item, depth + 1) for item in value]
        return items[1:] if items[:1] == [_TUPLE] else items
    if isinstance(value, msgpack.Timestamp):
        return value.to_datetime().isoformat()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return json_value(value.tolist(), depth + 1)
    return repr(value)


def _key(key: Any) -> str:
    shown = json_value(key)
    return shown if isinstance(shown, str) else str(shown)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def _extension(value: msgpack.ExtType, depth: int) -> Any:
    try:
        if value.code == _COMPLEX:
            return json_value(complex(*struct.unpack(">dd", value.data)))
        if value.code in (_SET, _ARRAY):
            inner = msgpack.unpackb(value.data, strict_map_key=False)
            return json_value(inner if value.code == _SET else _array(inner), depth + 1)
    except (ValueError, TypeError, KeyError, struct.error, Corrupt, Unsupported):
        pass  # shown as the bytes it is
    return f"extension {value.code} base64:{base64.b64encode(value.data).decode()}"


def _array(payload: dict[str, Any]) -> Any:
    if "values" in payload:
        return payload["values"]
    stored = payload["dtype"]  # {"str": "<i8"} or {"descr": fields as lists}
    dtype = parse_dtype(stored["str"])
    return np.frombuffer(payload["data"], dtype=dtype).reshape(payload["shape"])
