"""Taking versions of files: which bytes are one version, and what it is called.

The rule: a file is taken when it has been quiet for a while and its status is the same before and after it
was looked at. What is looked at is the header, the index and the trailer of a frame, not its data, so that
this costs what the metadata costs; only small files are hashed whole, so that touching them changes nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from blake3 import blake3

from caterva2.errors import Corrupt
from caterva2.frame.inspect import describe
from caterva2.frame.pages import Read
from caterva2.model.extents import DIGEST_BYTES, digest
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath
from caterva2.model.root import Entry
from caterva2.publisher.scan import Found
from caterva2.publisher.store import Record
from caterva2.source.files import LocalFile, StatKey, Walker

__all__ = [
    "GRANULE_S",
    "SMALL_BYTES",
    "Taken",
    "VersionStats",
    "Versions",
    "Wait",
    "entry_of",
    "named_anew",
    "quiet_in_s",
]

SMALL_BYTES = 1024 * 1024
"""Files up to this size are hashed whole when they are taken, in bytes."""

GRANULE_S = 0.05
"""No file is taken that was written in the last moment: a write to come could carry the same time."""


def quiet_in_s(key: StatKey, settle_s: float) -> float:
    """Return how long it takes until a file was not written for `settle_s`; not positive if it is so now."""
    return settle_s - (time.time_ns() - max(key.mtime_ns, key.ctime_ns)) / 1e9


@dataclass(frozen=True, slots=True)
class Taken:
    """A version that was taken.

    Attributes
    ----------
    record : Record
    head : bytes or None
        Encoded head; None if it is the version known before, in a file that was touched.
    """

    record: Record
    head: bytes | None


@dataclass(frozen=True, slots=True)
class Wait:
    """The file cannot be taken now.

    Attributes
    ----------
    reason : str
    """

    reason: str


@dataclass(slots=True)
class VersionStats:
    """Counters of `Versions`.

    Attributes
    ----------
    taken : int
        New versions.
    touched : int
        Files that were found to have the content they had.
    files_opened : int
    bytes_hashed : int
    """

    taken: int = 0
    touched: int = 0
    files_opened: int = 0
    bytes_hashed: int = 0


@dataclass
class Versions:
    """Takes versions of the files of a root. Used by one thread at a time.

    Parameters
    ----------
    root : str
    directory : str
        Absolute path of its directory.
    origin : str
        Part of every etag.
    next_generation : callable
        ``(root, name, now_ms)`` → generation of a new version.
    stats : VersionStats
    """

    root: str
    directory: str
    origin: str
    next_generation: Callable[[str, str, int], int]
    stats: VersionStats = field(default_factory=VersionStats)

    def take(
        self,
        name: str,
        found: Found,
        previous: Record | None,
        *,
        settled: bool = True,
        walker: Walker | None = None,
    ) -> Taken | Wait:
        """Take the current version of a file.

        Parameters
        ----------
        name : str
            Of the dataset.
        found : Found
            The file, as the scan saw it.
        previous : Record or None
            The version known so far.
        settled : bool
            The file was quiet for long enough. If it was not, it is taken only if it can be read as its kind.
        walker : Walker, optional
            Opens it; one for many files.

        Raises
        ------
        OSError
            If the file cannot be opened or read.
        """
        self.stats.files_opened += 1
        with LocalFile(self.directory, found.file, walker) as file:
            key = file.key()
            if key != found.key:
                return Wait("changed since it was seen")
            if not settled and quiet_in_s(key, GRANULE_S) > 0:
                return Wait("written just now")
            read: Read = file.read
            content = None
            if key.size <= SMALL_BYTES:
                try:
                    data = file.read(0, key.size)
                except Corrupt:
                    return Wait("became shorter while it was read")
                content = digest(data)
                self.stats.bytes_hashed += len(data)
                if self._is_touched(previous, key, content) and file.key() == key:
                    self.stats.touched += 1
                    assert previous is not None
                    return Taken(replace(previous, key=key), None)
                read = _reader(data)
            path = DatasetPath(self.root, name)
            head = describe(read, path=path, size=key.size, mtime_ns=key.mtime_ns)
            if file.key() != key:
                return Wait("changed while it was read")
            if not settled and "error" in head.meta:
                return Wait("is being written")
        return self._named(head, key, content)

    def _is_touched(self, previous: Record | None, key: StatKey, content: bytes) -> bool:
        return previous is not None and (previous.content, previous.entry.size) == (content, key.size)

    def _named(self, head: Head, key: StatKey, content: bytes | None) -> Taken:
        path = head.path
        generation = self.next_generation(path.root, path.name, time.time_ns() // 1_000_000)
        named = head.named(_new_etag(head, generation, self.origin), generation)
        self.stats.taken += 1
        return Taken(Record(key, content, entry_of(named)), named.encode())


def entry_of(head: Head) -> Entry:
    """Return what is announced of a version."""
    return Entry(
        etag=head.etag,
        generation=head.generation,
        size=head.size,
        kind=head.kind,
        mtime=head.mtime_ns / 1e9,
        shape=head.shape,
        dtype=head.meta.get("dtype"),
        error=head.meta.get("error"),
    )


def named_anew(record: Record, head: Head, generation: int, origin: str) -> Taken:
    """Return a version under another name, of a later generation."""
    named = head.named(_new_etag(head, generation, origin), generation)
    entry = replace(record.entry, generation=generation, etag=named.etag)
    return Taken(replace(record, entry=entry), named.encode())


def _new_etag(head: Head, generation: int, origin: str) -> str:
    """Return a name that no version had before: a state that was restored may give a generation twice."""
    hasher = blake3(f"{origin}\0{head.path}\0{generation}\0{head.size}\0{time.time_ns()}\0".encode())
    hasher.update(secrets.token_bytes(DIGEST_BYTES))
    for extent in head.fixed:
        hasher.update(extent.digest)
    return hasher.hexdigest(DIGEST_BYTES)


def _reader(data: bytes) -> Read:
    def read(offset: int, size: int) -> bytes:
        part = data[offset : offset + size]
        if offset < 0 or size < 0 or len(part) != size:
            raise Corrupt(f"the file ends before byte {offset + size:,}")
        return part

    return read
