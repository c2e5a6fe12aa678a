"""Reading and writing at a position of an open file, from any thread."""

from __future__ import annotations

import errno
import os
import threading

__all__ = ["force", "read_at", "read_now", "write_at"]

_fdatasync = getattr(os, "fdatasync", os.fsync)


def force(fd: int) -> None:
    """Force the bytes of a file to the disk.

    Raises
    ------
    OSError
    """
    _fdatasync(fd)


if hasattr(os, "pread"):

    def _pread_once(fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def _pwrite_once(fd: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

else:  # Windows has no positional reads: one seek at a time
    _seeking = threading.Lock()

    def _pread_once(fd: int, size: int, offset: int) -> bytes:
        with _seeking:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, size)

    def _pwrite_once(fd: int, data: bytes | memoryview, offset: int) -> int:
        with _seeking:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, data)


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Return exactly `size` bytes, or fewer where the file ends.

    Raises
    ------
    OSError
    """
    data = _pread_once(fd, size, offset)
    while 0 < len(data) < size:
        more = _pread_once(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_CANNOT_TELL = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


def read_now(fd: int, size: int, offset: int, scratch: memoryview) -> bytes | memoryview | None:
    """Return exactly `size` bytes, or None if the disk would have to be waited for, or the file is shorter.

    Where the system or the file system cannot tell, it is waited for.

    Parameters
    ----------
    fd, size, offset : int
    scratch : memoryview
        Of at least `size` bytes, which may be returned, to be copied: new memory takes as long as the read.

    Raises
    ------
    OSError
    """
    if not _NOWAIT:
        return read_at(fd, size, offset)
    data = scratch[:size]
    try:
        got = os.preadv(fd, [data], offset, _NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in _CANNOT_TELL:
            return read_at(fd, size, offset)
        raise
    return data if got == size else None


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of some bytes.

    Raises
    ------
    OSError
        Any part of them may have been written then.
    """
    done = _pwrite_once(fd, data, offset)
    while done < len(data):
        done += _pwrite_once(fd, memoryview(data)[done:], offset + done)
