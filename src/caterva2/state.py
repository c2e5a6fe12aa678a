"""Ownership of a state directory: one process at a time."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from caterva2.errors import StateInUse

__all__ = ["StateLock", "process_exists"]

_LOCKED_BYTE = 1 << 30
"""Where the lock stands on Windows: beyond the pid, since locked bytes cannot be read there."""


class StateLock:
    """Holds a directory for this process; the system lets go of it when the process ends, however it ends.

    A context manager. The directory is created for its owner alone (mode 0700).

    Parameters
    ----------
    directory : Path
        The state directory; the lock is a file in it that holds the owner's process id.
    foreign : bool
        It is the directory of another service, which must not start meanwhile: nothing is written there, and
        where there is no lock there is nothing to be held.
    """

    def __init__(self, directory: Path, *, foreign: bool = False) -> None:
        self.directory = directory
        self._foreign = foreign
        self._fd: int | None = None

    @property
    def fileno(self) -> int | None:
        """Descriptor that holds the lock; a child that inherits it holds the lock as well."""
        return self._fd

    def acquire(self) -> None:
        """Take the directory.

        Raises
        ------
        StateInUse
            If somebody holds it, this process included.
        OSError
            If the directory cannot be made or written.
        """
        if self._foreign:
            with contextlib.suppress(FileNotFoundError):
                self._fd = self._open(os.O_RDONLY)
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = self._open(os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"%d\n" % os.getpid())
        self._fd = fd

    def _open(self, flags: int) -> int:
        fd = os.open(self.directory / "lock", flags, 0o600)
        try:
            _lock(fd)
        except OSError as error:
            pid = _read_pid(fd)
            os.close(fd)
            alive = pid is not None and process_exists(pid)
            raise StateInUse(str(self.directory), pid, alive=alive) from error
        return fd

    def release(self) -> None:
        """Let go of the directory; does nothing if it is not held."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            _unlock(self._fd)
        os.close(self._fd)
        self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def process_exists(pid: int) -> bool:
    """Return whether a process of that id runs; True where that cannot be known. A zombie has ended."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):  # where there is no /proc, a zombie seems to run
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


def _read_pid(fd: int) -> int | None:
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        return int(os.read(fd, 32))
    except (OSError, ValueError):
        return None


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)

    def _unlock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
