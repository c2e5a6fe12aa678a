"""Holes in files: giving the space of a byte range back to the file system, while the file keeps its size.

Python has no call for it. On Linux it is ``fallocate(2)`` with ``FALLOC_FL_PUNCH_HOLE``; whole blocks inside
the range are freed, and the parts of blocks at its ends become zeros.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["UNSUPPORTED", "can_punch", "punch"]

UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors that say that there are no holes; others say something of the disk."""

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02

_PROBE_BYTES = 64 * 1024


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """Return the C library's function with 64-bit offsets; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    # where it is missing (musl), offsets of `fallocate` have 64 bits everywhere
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]  # a foreign function has no type


def punch(fd: int, offset: int, size: int) -> None:
    """Make a byte range of a file read as zeros, and free the blocks that are all inside it.

    Parameters
    ----------
    fd : int
        Open for writing.
    offset, size : int
        In bytes.

    Raises
    ------
    OSError
        ``EOPNOTSUPP`` if the system or the file system has no holes; others as ``fallocate(2)``.
    """
    function = _fallocate()
    if function is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    while function(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, size) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def can_punch(directory: Path) -> bool:
    """Return whether files of a directory can have holes punched; True if a disk that fails does not tell."""
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            file.write(b"\1" * _PROBE_BYTES)
            punch(file.fileno(), 0, _PROBE_BYTES)
            file.seek(0)
            return not any(file.read(_PROBE_BYTES))
    except OSError as error:
        return error.errno not in UNSUPPORTED
