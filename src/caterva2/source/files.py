"""Originals on disk: opened so that no link leads out of the root, read so that no tear goes unnoticed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from caterva2.errors import Corrupt

__all__ = ["LocalFile", "StatKey", "Walker", "open_below", "stat_key"]

_INT64 = (1 << 63) - 1

_READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# A fifo that takes the place of a file must not block the open
_FILE_FLAGS = _READ_FLAGS | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_DIRECTORY_FLAGS = _READ_FLAGS | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_DIRECTORY", 0)

_WALKS = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")


class StatKey(NamedTuple):
    """What the file system says of a file; when all of it is the same, so is the content.

    Attributes
    ----------
    ino : int
        Inode, cut to 63 bits.
    size : int
        In bytes.
    mtime_ns, ctime_ns : int
        Times of last modification of the content and of the inode, in nanoseconds since the epoch.
    """

    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


def stat_key(status: os.stat_result) -> StatKey:
    """Return the key of a file's status."""
    return StatKey(status.st_ino & _INT64, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def open_below(directory: str, name: str) -> int:
    """Open a regular file below a directory for reading, without following any link on the way.

    Parameters
    ----------
    directory : str
        Absolute path; links in it are followed.
    name : str
        Path below it, with ``/`` between its parts, none of them ``..``.

    Returns
    -------
    int
        A descriptor.

    Raises
    ------
    OSError
        If it cannot be opened; with ``ELOOP`` or ``ENOTDIR`` if a part of `name` is a link by now, with
        ``EINVAL`` if it is no regular file.
    """
    with Walker() as walker:
        return walker.open_below(directory, name)


class Walker:
    """Opens files one after the other; of those in the same folder only the first costs the way there.

    Between two files it keeps their folder open, and would not notice that another took its place: to be used
    for a moment.
    """

    def __init__(self) -> None:
        self._at: tuple[str, str] | None = None
        self._fd = -1

    def close(self) -> None:
        """Close the folder it is in."""
        if self._at is not None:
            self._at = None
            os.close(self._fd)

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open_below(self, directory: str, name: str) -> int:
        """Do as the function `open_below`."""
        if _WALKS:
            folder, _, base = name.rpartition("/")
            self._go_to(directory, folder)
            fd = os.open(base, _FILE_FLAGS, dir_fd=self._fd)
        else:
            fd = os.open(f"{directory}/{name}", _FILE_FLAGS)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", name)
        return fd

    def _go_to(self, directory: str, folder: str) -> None:
        if self._at != (directory, folder):
            self.close()
            self._fd = _walk(directory, folder.split("/") if folder else ())
            self._at = directory, folder


def _walk(directory: str, parts: Iterable[str]) -> int:
    at = os.open(directory, _READ_FLAGS | os.O_DIRECTORY)
    for part in parts:
        try:
            below = os.open(part, _DIRECTORY_FLAGS, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


class LocalFile:
    """An open original. Every use of it may block; one use at a time.

    Parameters
    ----------
    directory, name : str
        As for `open_below`.
    walker : Walker, optional
        Opens it.

    Raises
    ------
    OSError
        As `open_below`.
    """

    def __init__(self, directory: str, name: str, walker: Walker | None = None) -> None:
        self._name = name
        self._fd = walker.open_below(directory, name) if walker else open_below(directory, name)

    def close(self) -> None:
        """Close the descriptor; does nothing if it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> LocalFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def key(self) -> StatKey:
        """Return the key of what is open."""
        return stat_key(os.fstat(self._fd))

    def is_still(self, key: StatKey) -> bool:
        """Return whether the content is that of a key.

        Replacing a file by renaming another over it, or deleting it, changes the ctime of the inode that is
        let go of, not its content: who has it open still reads the old version.
        """
        status = os.fstat(self._fd)
        now = stat_key(status)
        return now == key or (status.st_nlink == 0 and now[:3] == key[:3])

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file: the `Read` of `caterva2.frame`.

        Raises
        ------
        Corrupt
            If they are not all there.
        OSError
        """
        if offset < 0 or size < 0:
            raise Corrupt(f"bytes {offset}+{size} of {self._name} make no sense")
        data = _pread(self._fd, size, offset)
        while len(data) < size:  # one call returns less than 2 GiB
            more = _pread(self._fd, size - len(data), offset + len(data))
            if not more:
                raise Corrupt(f"{self._name} ends before byte {offset + size:,}")
            data += more
        return data


if hasattr(os, "pread"):
    _pread = os.pread
else:

    def _pread(fd: int, size: int, offset: int) -> bytes:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)
