"""The file of a version: read, and checked to be that version's still when it was read.

Bytes are read with ``pread`` from a descriptor of the request's own; they belong to a version only if the
file's status still is the version's after they were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from caterva2.errors import Corrupt
from caterva2.frame import pages
from caterva2.frame.inspect import describe
from caterva2.model.extents import Extent, digest
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.source.files import LocalFile, StatKey

__all__ = ["LocalVersion", "Moved", "Reading", "make_head", "make_page", "read_extents"]


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """The current version of a dataset, and the file that has it.

    Attributes
    ----------
    etag : str
    generation : int
    directory : str
        Absolute path of the root's directory.
    file : str
        Path of the file below it, free of links.
    key : StatKey
        Status of the file while it has this version.
    """

    etag: str
    generation: int
    directory: str
    file: str
    key: StatKey


class Moved(Corrupt):
    """The file is not the version any more."""


def _check(file: LocalFile, version: LocalVersion) -> None:
    if not file.is_still(version.key):
        raise Moved(f"{version.file} has changed")


def _open(version: LocalVersion) -> LocalFile:
    """Open the file of a version.

    Its key must match to the last bit: an inode that was let go of belongs to those who had it open before.
    """
    file = LocalFile(version.directory, version.file)
    try:
        if file.key() != version.key:
            raise Moved(f"{version.file} has changed")
    except BaseException:
        file.close()
        raise
    return file


def read_extents(version: LocalVersion, extents: Sequence[Extent]) -> list[bytes]:
    """Return the bytes of extents. Blocking, as all of these are.

    Raises
    ------
    Moved
        If the file is another version now.
    Corrupt
        If the bytes are not those that were hashed.
    OSError
        If it cannot be read.
    """
    with _open(version) as file:
        try:
            pieces = [file.read(extent.offset, extent.size) for extent in extents]
        finally:
            # Times only grow: if the status is the same behind the last read, it was so behind each
            _check(file, version)
    for extent, piece in zip(extents, pieces, strict=True):
        if digest(piece) != extent.digest:
            raise Corrupt(f"{version.file} has other bytes at {extent.offset} than when they were hashed")
    return pieces


def make_head(version: LocalVersion, path: DatasetPath) -> Head:
    """Return the head of a version, made anew; raises as `read_extents`."""
    key = version.key
    with _open(version) as file:
        try:
            head = describe(file.read, path=path, size=key.size, mtime_ns=key.mtime_ns)
        finally:
            _check(file, version)
    return replace(head, etag=version.etag, generation=version.generation)


def make_page(version: LocalVersion, head: Head, number: int) -> tuple[Page, int]:
    """Return a page of a version, and how many bytes were hashed for it; raises as `read_extents`."""
    nbytes = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal nbytes
        nbytes += size
        return file.read(offset, size)

    with _open(version) as file:
        try:
            return pages.make_page(read, head, number), nbytes
        finally:
            _check(file, version)  # before any complaint about the content


class Reading:
    """The file of a stream, opened by its first read. Used by one thread at a time."""

    def __init__(self, version: LocalVersion) -> None:
        self._version = version
        self._file: LocalFile | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return some bytes; raises as `read_extents`."""
        if self._file is None:
            self._file = _open(self._version)
        try:
            return self._file.read(offset, size)
        finally:
            _check(self._file, self._version)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
