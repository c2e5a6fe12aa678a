"""What the values on the bus say: JSON objects. Unknown members are ignored, so that they can grow."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from sys import intern
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic_core import from_json  # in a third of the time of `json`

from caterva2.errors import Corrupt
from caterva2.model.path import Kind
from caterva2.model.root import Entry

__all__ = [
    "Claim",
    "Heartbeat",
    "SourceBeat",
    "check_entry",
    "decode_entry",
    "dump",
    "encode_entry",
    "is_url",
    "load",
    "members_of",
]

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_MEMBERS = ("etag", "generation", "size", "kind", "mtime", "shape", "dtype", "error")
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
    origin : str
        Instance of the publisher that the root is from, where a tier claims it: a subscriber of another bus
        that announces it here. Empty where the claim is that publisher's own.
    via : tuple of str
        Instances of the tiers that it came through, nearest the origin first; the last one claims it.
    """

    instance: str
    url: str
    title: str = ""
    reset: int = 0
    origin: str = ""
    via: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the value."""
        return dump(asdict(self))

    @classmethod
    def decode(cls, value: bytes) -> Claim:
        """Parse a value.

        Raises
        ------
        Corrupt
        """
        raw = _load(value)
        return cls(
            _text(raw, "instance"),
            _text(raw, "url"),
            _text(raw, "title", ""),
            _count(raw, "reset", 0),
            _text(raw, "origin", ""),
            _texts(raw, "via", ()),
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
    age_s : float
        For how long the announcer, a tier, could not confirm itself that the root is current, in seconds; 0
        while it can. A publisher always can.
    """

    instance: str
    url: str
    count: int
    digest: str | None
    epoch: str
    revision: int
    reset: int = 0
    age_s: float = 0.0

    def encode(self) -> bytes:
        """Return the value."""
        return dump(asdict(self))

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
            _number(raw, "age_s", 0.0),
        )


@dataclass(frozen=True, slots=True)
class SourceBeat:
    """A sign of life of a subscriber that others may read through.

    Attributes
    ----------
    instance : str
        The subscriber's state directory, by a random name.
    url : str
        Where it serves.
    roots : tuple of str
        The roots that it serves.
    load : float
        How many requests wait there, on the average, where one more finds it busy.
    """

    instance: str
    url: str
    roots: tuple[str, ...]
    load: float

    def encode(self) -> bytes:
        """Return the value."""
        return dump(asdict(self))

    @classmethod
    def decode(cls, value: bytes) -> SourceBeat:
        """Parse a value.

        Raises
        ------
        Corrupt
        """
        raw = _load(value)
        url = _text(raw, "url").rstrip("/")
        if not is_url(url):
            raise Corrupt(f"url is {url!r}")
        return cls(_text(raw, "instance"), url, _texts(raw, "roots"), _number(raw, "load"))


def is_url(text: str) -> bool:
    """Return whether a service can be asked at what is said to be its address."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port, or brackets
        return False


def encode_entry(entry: Entry) -> bytes:
    """Return the value of a dataset."""
    members = zip(_MEMBERS, members_of(entry), strict=True)
    return dump({name: value for name, value in members if value is not None})


def decode_entry(value: bytes) -> Entry:
    """Parse the value of a dataset.

    Raises
    ------
    Corrupt
        If it is not one.
    """
    get = _load(value).get
    return check_entry(*[get(name) for name in _MEMBERS])


def members_of(entry: Entry) -> tuple[object, ...]:
    """Return what `check_entry` takes."""
    described = (entry.kind, entry.mtime, entry.shape, entry.dtype, entry.error)
    return (entry.etag, entry.generation, entry.size, *described)


def check_entry(  # noqa: PLR0917 - as they come; Any: what the JSON says
    etag: Any, generation: Any, size: Any, kind: Any, mtime: Any, shape: Any, dtype: Any, error: Any
) -> Entry:
    """Return a dataset made of values that were read.

    Raises
    ------
    Corrupt
        If one of them is not what it should be.
    """
    if not isinstance(etag, str) or not etag:
        raise Corrupt(f"etag is {etag!r}")
    for name, number in (("generation", generation), ("size", size)):
        if type(number) is not int or number < 0:
            raise Corrupt(f"{name} is {number!r}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise Corrupt(f"kind is {kind!r}")
    if type(mtime) not in (int, float) or not math.isfinite(mtime):
        raise Corrupt(f"mtime is {mtime!r}")
    for name, text in (("dtype", dtype), ("error", error)):
        if text is not None and not isinstance(text, str):
            raise Corrupt(f"{name} is {text!r}")
    shape = None if shape is None else _shape(shape)
    dtype = dtype and intern(dtype)  # many have the same
    return Entry(etag, generation, size, _KINDS[kind], float(mtime), shape, dtype, error)


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise Corrupt(f"shape is {value!r}")
    for length in value:
        if type(length) is not int or length < 0:
            raise Corrupt(f"shape is {value!r}")
    return tuple(value)


def dump(value: object) -> bytes:
    """Return compact JSON."""
    # a lone surrogate of a message must not stop an announcement
    return _ENCODER.encode(value).encode(errors="backslashreplace")


def load(value: bytes) -> Any:  # Any: what the JSON says
    """Parse JSON.

    Raises
    ------
    Corrupt
        If it is none.
    """
    with contextlib.suppress(ValueError):
        return from_json(value)
    try:
        return json.loads(value.decode())  # knows lone surrogates, which a message may have
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"not JSON: {error}") from error


def _load(value: bytes) -> dict[str, Any]:
    raw = load(value)
    if not isinstance(raw, dict):
        raise Corrupt("not a JSON object")
    return raw


def _text(raw: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = raw.get(name, default)
    if not isinstance(value, str):
        raise Corrupt(f"{name} is {value!r}")
    return value


def _texts(raw: Mapping[str, Any], name: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
    values = raw.get(name, default)
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise Corrupt(f"{name} is {values!r}")
    return tuple(values)


def _number(raw: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = raw.get(name, default)
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise Corrupt(f"{name} is {value!r}")
    return float(value)


def _count(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = raw.get(name, default)
    if type(value) is not int or value < 0:
        raise Corrupt(f"{name} is {value!r}")
    return value
