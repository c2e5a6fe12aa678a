"""What listings, downloads and event streams say, as small frozen types.

Each has the members of its JSON; `dataclasses.asdict` gives that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from caterva2.model.pattern import FollowMode

__all__ = ["CacheCheck", "Cached", "Download", "Event", "Followed", "RootInfo", "Row", "SourceInfo"]


@dataclass(frozen=True, slots=True)
class RootInfo:
    """A root.

    Attributes
    ----------
    name : str
    state : str
        ``online``, ``offline`` or ``unknown`` (whoever answers is cut off itself).
    datasets : int
    bytes : int
        Size of all its files, in bytes.
    publisher : str or None
        URL of who serves it.
    title : str
    behind : int
        Datasets of which the publisher announces older versions than were seen by who answers: they are not
        taken.
    reset_at : str or None
        When the publisher last had all taken as it is, ISO 8601 in UTC.
    freshness : str
        ``fresh`` or ``unverified``, by who answers.
    age_s : float or None
        Seconds since it was last confirmed to be current; None if it never was.
    tiers : int
        How many subscribers pass it on, from broker to broker, between the publisher and who answers.
    """

    name: str
    state: Literal["online", "offline", "unknown"]
    datasets: int
    bytes: int
    publisher: str | None
    title: str
    behind: int
    reset_at: str | None
    freshness: Literal["fresh", "unverified"]
    age_s: float | None
    tiers: int

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RootInfo:
        """Return what ``/api/roots`` says of a root."""
        return cls(*(value[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Row:
    """A dataset in a listing.

    Attributes
    ----------
    path : str
        ``root/dir/name``.
    kind : str
        ``array``, ``frame`` or ``file``.
    size : int
        Size of the file, in bytes.
    shape : tuple of int or None
    dtype : str or None
        Of arrays; None for the others.
    etag : str
        Name of the version.
    generation : int
        Order of the versions.
    mtime : str
        Time of last modification, ISO 8601 in UTC.
    error : str or None
        Why the file cannot be read as its name promises.
    """

    path: str
    kind: Literal["array", "frame", "file"]
    size: int
    shape: tuple[int, ...] | None
    dtype: str | None
    etag: str
    generation: int
    mtime: str
    error: str | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Row:
        """Return a row of ``/api/catalogue``."""
        members = {name: value[name] for name in cls.__slots__}
        if members["shape"] is not None:
            members["shape"] = tuple(members["shape"])
        return cls(**members)


@dataclass(frozen=True, slots=True)
class Followed:
    """A dataset that is followed, and how much of it the subscriber has.

    Attributes
    ----------
    path, etag : str
    size, cached_bytes : int
        Of the file and of what is cached of it, in bytes.
    complete : bool
        All of it is cached.
    mode : str
        What is refreshed at once when it changes: ``meta``, ``cached`` or ``full``; see `Client.follow`.
    freshness : str
        ``fresh``: confirmed to be current; ``unverified``: the subscriber is cut off from the publisher.
    age_s : float or None
        Seconds since it was last confirmed; None if it never was.
    """

    path: str
    etag: str
    size: int
    cached_bytes: int
    complete: bool
    mode: FollowMode
    freshness: Literal["fresh", "unverified"]
    age_s: float | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Followed:
        """Return a row of ``/api/followed``."""
        return cls(*(value[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Cached:
    """A version that a subscriber has cached.

    Attributes
    ----------
    path, etag : str
    size, cached_bytes : int
        Of the file and of what is cached of it, in bytes.
    complete : bool
        All of it is cached.
    last_used : float
        Seconds since the epoch.
    pinned : bool
        It is never evicted.
    current : bool
        It is the version that is published now, as far as the subscriber knows.
    """

    path: str
    etag: str
    size: int
    cached_bytes: int
    complete: bool
    last_used: float
    pinned: bool
    current: bool

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cached:
        """Return a row of ``/api/cache``."""
        return cls(*(value[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class CacheCheck:
    """What the check of a cached version found.

    Attributes
    ----------
    path, etag : str
    extents, bytes : int
        What was hashed.
    wrong, repaired : int
        Extents that did not match their digest; those of them that were fetched again.
    dropped : int
        Extents that are not cached any more: wrong and not to be had, or of no known digest.
    unreadable : int
        Extents that the disk did not give.
    corrected_bytes : int
        What the count of cached bytes was off by.
    """

    path: str
    etag: str
    extents: int
    bytes: int
    wrong: int
    repaired: int
    dropped: int
    unreadable: int
    corrected_bytes: int

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not (self.wrong or self.dropped or self.unreadable or self.corrected_bytes)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CacheCheck:
        """Return a row of ``/api/fsck``."""
        return cls(*(value[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Who a subscriber may ask for a root.

    Attributes
    ----------
    root, url : str
    kind : str
        ``origin``, the publisher; or ``further``, another subscriber.
    state : str
        ``ok``; ``down``: it failed, and is asked last for a moment; ``hung``: it answers nothing;
        ``quarantined``: it sent what is wrong, and is not asked.
    rtt_ms : float or None
        How far it is, in milliseconds; None if that was not measured.
    load : float
        How busy it is, there and with our requests.
    requests, bytes : int
        Answers that began, and bytes that came.
    rejected : int
        Extents whose bytes did not match their digest.
    hedged : int
        Times that another one was asked as well, because this one was silent.
    until : float or None
        Until when it is not ``ok``, in seconds since the epoch, where that is known.
    """

    root: str
    url: str
    kind: Literal["origin", "further"]
    state: Literal["ok", "down", "hung", "quarantined"]
    rtt_ms: float | None
    load: float
    requests: int
    bytes: int
    rejected: int
    hedged: int
    until: float | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SourceInfo:
        """Return what ``/api/sources`` says of a source, with its root."""
        return cls(*(value[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Download:
    """A finished download.

    Attributes
    ----------
    path : str
        The dataset.
    file : str
        Where it is now.
    bytes : int
        Its size, in bytes.
    fetched_bytes : int
        What was transferred this time: less than `bytes` if a broken download was resumed.
    seconds : float
    """

    path: str
    file: str
    bytes: int
    fetched_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """A difference that the subscriber saw.

    Attributes
    ----------
    id : str or None
        What to resume from: the next stream's ``since``.
    kind : str
        ``created``, ``changed``, ``deleted`` (datasets); ``online``, ``offline``, ``reset`` (roots; after a
        reset, generations may be lower than before); ``missed``: events were, so look at the listing again.
        Newer services may have further ones: ignore what you do not know.
    path : str
        ``root/dir/name``, or a root; for ``missed`` the pattern that was asked for.
    time : float
        When it was seen, in seconds since the epoch.
    etag : str or None
    generation : int or None
        The version that is current now, where there is one.
    """

    id: str | None
    kind: str
    path: str
    time: float
    etag: str | None = None
    generation: int | None = None
