"""What the values on the bus say: JSON objects. Unknown members are ignored, so that they can grow."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from sys import intern
from typing import Any, get_args

from pydantic_core import from_json  # a third of the time of `json`

from caterva2.errors import Corrupt
from caterva2.model.catalogue import Entry
from caterva2.model.path import Kind

__all__ = ["Claim", "Heartbeat", "decode_entry", "encode_entry"]

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


@dataclass(frozen=True, slots=True)
class Claim:
    """To whom a root belongs.

    Attributes
    ----------
    instance : str
        The publisher's state directory, by a random name.
    url : str
        Where it serves the root.
    title : str
    reset : int
        When an operator last had it reset, in milliseconds since the epoch; only ever grows; 0: never.
    """

    instance: str
    url: str
    title: str = ""
    reset: int = 0

    def encode(self) -> bytes:
        """Return the value."""
        return _dump(asdict(self))

    @classmethod
    def decode(cls, value: bytes) -> Claim:
        """Parse a value.

        Raises
        ------
        Corrupt
        """
        raw = _load(value)
        return cls(
            _text(raw, "instance"), _text(raw, "url"), _text(raw, "title", ""), _count(raw, "reset", 0)
        )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life of a root's publisher, and what the bus should say of the root by now.

    Attributes
    ----------
    instance, url : str
        As in the `Claim`.
    count : int
        Datasets of the root.
    digest : str or None
        Digest of the root as the bus has it; None while the publisher has changes to announce.
    epoch : str
        The stream to which `revision` belongs.
    revision : int
        The last change of the root that `digest` covers. Who has not seen it yet cannot compare.
    reset : int
        As in the `Claim`.
    """

    instance: str
    url: str
    count: int
    digest: str | None
    epoch: str
    revision: int
    reset: int = 0

    def encode(self) -> bytes:
        """Return the value."""
        return _dump(asdict(self))

    @classmethod
    def decode(cls, value: bytes) -> Heartbeat:
        """Parse a value.

        Raises
        ------
        Corrupt
        """
        raw = _load(value)
        digest = None if raw.get("digest") is None else _text(raw, "digest")
        return cls(
            _text(raw, "instance"),
            _text(raw, "url"),
            _count(raw, "count"),
            digest,
            _text(raw, "epoch"),
            _count(raw, "revision"),
            _count(raw, "reset", 0),
        )


def encode_entry(entry: Entry) -> bytes:
    """Return the value of a dataset."""
    members = {
        "etag": entry.etag,
        "generation": entry.generation,
        "size": entry.size,
        "kind": entry.kind,
        "mtime": entry.mtime,
        "shape": entry.shape,
        "dtype": entry.dtype,
        "error": entry.error,
    }
    return _dump({name: value for name, value in members.items() if value is not None})


def decode_entry(value: bytes) -> Entry:
    """Parse the value of a dataset.

    Raises
    ------
    Corrupt
        If it is not one.
    """
    raw = _load(value)
    mtime, shape, dtype = raw.get("mtime"), raw.get("shape"), raw.get("dtype")
    if isinstance(mtime, bool) or not isinstance(mtime, int | float) or not math.isfinite(mtime):
        raise Corrupt(f"mtime is {mtime!r}")
    etag = _text(raw, "etag")
    if not etag:
        raise Corrupt("etag is empty")
    return Entry(
        etag,
        _count(raw, "generation"),
        _count(raw, "size"),
        _kind(raw),
        float(mtime),
        None if shape is None else _shape(shape),
        None if dtype is None else intern(_text(raw, "dtype")),  # many have the same
        None if raw.get("error") is None else _text(raw, "error"),
    )


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise Corrupt(f"shape is {value!r}")
    for length in value:
        if type(length) is not int or length < 0:
            raise Corrupt(f"shape is {value!r}")
    return tuple(value)


def _kind(raw: Mapping[str, Any]) -> Kind:
    kind = _KINDS.get(_text(raw, "kind"))
    if kind is None:
        raise Corrupt(f"kind is {raw.get('kind')!r}")
    return kind


def _dump(members: Mapping[str, Any]) -> bytes:
    # a lone surrogate of a message must not stop an announcement
    return _ENCODER.encode(members).encode(errors="backslashreplace")


def _load(value: bytes) -> dict[str, Any]:
    try:
        raw = from_json(value)
    except ValueError:
        raw = _load_leniently(value)
    if not isinstance(raw, dict):
        raise Corrupt("not a JSON object")
    return raw


def _load_leniently(value: bytes) -> Any:  # Any: what the JSON says
    try:
        return json.loads(value.decode())  # knows lone surrogates, which a message may have
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"not JSON: {error}") from error


def _text(raw: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = raw.get(name, default)
    if not isinstance(value, str):
        raise Corrupt(f"{name} is {value!r}")
    return value


def _count(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = raw.get(name, default)
    if type(value) is not int or value < 0:
        raise Corrupt(f"{name} is {value!r}")
    return value
