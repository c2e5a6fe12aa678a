"""The files of mirrors: opened when they are needed, and not too many of them open at once.

A mirror has two: its bytes, and its presence map, which is held in memory while they are open.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caterva2.cache.fileio import force, read_at

__all__ = ["ABSENT", "MAX_MAP_BYTES", "MAX_OPEN", "PRESENT", "VERIFIED", "MirrorFiles", "MirrorPool"]

DATA_SUFFIX = ".data"
MAP_SUFFIX = ".map"

ABSENT, PRESENT, VERIFIED = 0, 1, 2
"""States of an extent: the last is for those that were checked since the files were opened."""

MAX_OPEN = 128
"""Most mirrors that are open, two files each. More are only while more are being used at once."""

MAX_MAP_BYTES = 32 * 1024 * 1024
"""Most that their presence maps take, in bytes, but for that of the one used last."""

_PIECE = 1 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class MirrorFiles:
    """The files of one mirror. Methods may be called from any thread.

    They can be closed at any time: who is using them keeps them open until it is done.

    Parameters
    ----------
    pool : MirrorPool
    name : str
        Private name of the files, without suffix.
    size : int
        Size of the version, in bytes.
    nextents : int
        Number of extent numbers.
    """

    def __init__(self, pool: MirrorPool, name: str, size: int, nextents: int) -> None:
        self._pool = pool
        self.name = name
        self.size = size
        self.nextents = nextents
        self._lock = threading.Lock()
        self._states: npt.NDArray[np.uint8] | None = None
        self._fds: tuple[int, int] | None = None
        self._users = 0
        self._closing = False
        self._removed = False

    @property
    def are_open(self) -> bool:
        """Whether they can be used without opening them first."""
        return self._fds is not None

    @property
    def data_file(self) -> Path:
        """Where the bytes are."""
        return self._pool.directory / (self.name + DATA_SUFFIX)

    @property
    def map_file(self) -> Path:
        """Where the presence map is."""
        return self._pool.directory / (self.name + MAP_SUFFIX)

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
        """Yield the descriptors of the bytes and of the map, and the map: a state for each extent number.

        Raises
        ------
        OSError
            If the files cannot be opened, or were removed.
        """
        with self._lock:
            if self._fds is None or self._states is None:
                self._open_files()
            assert self._fds is not None and self._states is not None
            fds, states = self._fds, self._states
            self._users += 1
        self._pool.used(self)
        try:
            yield (*fds, states)
        finally:
            with self._lock:
                self._users -= 1
                if self._closing and not self._users:
                    self._close_files()

    def _open_files(self) -> None:
        if self._removed:
            raise FileNotFoundError(f"the mirror {self.name} was removed")
        data_fd = os.open(self.data_file, _FLAGS, 0o600)
        try:
            map_fd = os.open(self.map_file, _FLAGS, 0o600)
            try:
                self._states = self._load(data_fd, map_fd)
            except BaseException:
                os.close(map_fd)
                raise
        except BaseException:
            os.close(data_fd)
            raise
        self._fds = (data_fd, map_fd)

    def _load(self, data_fd: int, map_fd: int) -> npt.NDArray[np.uint8]:
        """Return the presence map; empty unless both files are of the right size."""
        states = np.zeros(self.nextents, np.uint8)  # untouched pages of it take no memory
        if os.fstat(data_fd).st_size != self.size or os.fstat(map_fd).st_size != self.nextents:
            os.ftruncate(map_fd, 0)
            os.ftruncate(data_fd, self.size)
            os.ftruncate(map_fd, self.nextents)
            return states
        for start in range(0, self.nextents, _PIECE):
            piece = read_at(map_fd, min(_PIECE, self.nextents - start), start) or b""
            if piece.count(0) != len(piece):
                states[start : start + len(piece)] = np.frombuffer(piece, np.uint8) != 0
        return states

    def close(self) -> None:
        """Close the files, at once or when those who are using them are done."""
        with self._lock:
            self._closing = True
            if not self._users:
                self._close_files()

    def _close_files(self) -> None:
        for fd in self._fds or ():
            os.close(fd)
        self._fds = self._states = None
        self._closing = False

    def remove(self) -> None:
        """Delete the files; later use raises `FileNotFoundError`."""
        self._removed = True
        self._pool.forget(self)
        self.close()
        for file in (self.map_file, self.data_file):
            # where open files cannot be deleted, the next start does it
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


class MirrorPool:
    """The mirrors of a directory; bounds how many have their files open.

    Parameters
    ----------
    directory : Path
    max_open : int
        As `MAX_OPEN`.
    durable : bool
        Whether what was written is to survive the machine, not just this process.

    Attributes
    ----------
    map_bytes : int
        What the presence maps of the open ones take.
    """

    def __init__(self, directory: Path, max_open: int = MAX_OPEN, *, durable: bool = False) -> None:
        self.directory = directory
        self._durable = durable
        self._max_open = max_open
        self._open: dict[MirrorFiles, None] = {}  # oldest first
        self._last: MirrorFiles | None = None  # the one in `_open` that was used last
        self.map_bytes = 0
        self._lock = threading.Lock()

    def sync(self, fd: int) -> None:
        """Force what was written to the disk, if it is to be durable.

        Raises
        ------
        OSError
        """
        if self._durable:
            force(fd)

    def used(self, mirror: MirrorFiles) -> None:
        """Note that a mirror has its files open, and close those unused for longest above the bounds."""
        if mirror is self._last:
            return
        excess = []
        with self._lock:
            self._drop(mirror)
            self._open[mirror] = None
            self._last = mirror
            self.map_bytes += mirror.nextents
            while len(self._open) > 1 and (
                len(self._open) > self._max_open or self.map_bytes > MAX_MAP_BYTES
            ):
                excess.append(oldest := next(iter(self._open)))
                self._drop(oldest)
        for other in excess:
            other.close()

    def _drop(self, mirror: MirrorFiles) -> None:
        if mirror is self._last:
            self._last = None
        if mirror in self._open:
            del self._open[mirror]
            self.map_bytes -= mirror.nextents

    def __len__(self) -> int:
        return len(self._open)

    def forget(self, mirror: MirrorFiles) -> None:
        """Note that a mirror has closed its files."""
        with self._lock:
            self._drop(mirror)

    def close(self) -> None:
        """Close all mirrors."""
        with self._lock:
            mirrors = list(self._open)
            for mirror in mirrors:
                self._drop(mirror)
        for mirror in mirrors:
            mirror.close()

    def names(self) -> set[str]:
        """Return the names of all mirrors that have files in the directory."""
        return {file.stem for file in self.directory.iterdir() if file.suffix in (DATA_SUFFIX, MAP_SUFFIX)}

    def remove(self, name: str) -> None:
        """Delete the files of a mirror that nobody has open."""
        for suffix in (MAP_SUFFIX, DATA_SUFFIX):
            with contextlib.suppress(OSError):
                (self.directory / (name + suffix)).unlink(missing_ok=True)
