"""The sparse local copy of one version, and the map of what is present in it.

Two files: the bytes, each extent at its original offset, and beside it the presence map, one byte for each
extent number (0 absent, 1 present).

Order of writes: the bytes of an extent (already checked against their digest), then its byte in the map.
Whoever finds a presence byte from before this process started checks the digest again before it trusts it,
so nothing needs to be forced to disk for what is served to be right. It can be, between the bytes and the map
and after it, so that what was kept is still here after a power failure.

Extents are evicted in the opposite order: their bytes in the map, then a hole is punched where they were.
Readers and evictions do not wait for each other: who reads during an eviction finds out by a counter, and
checks what it has read against the digest. Extents may overlap; so after holes were punched, each extent that
is left is checked once more on its next use.

The map is written by ``pwrite`` and held in memory, not mapped: a store to a mapped hole of a file is a
``SIGBUS`` when the disk is full, and an error that can be handled here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caterva2.cache.holes import punch
from caterva2.model.extents import Extent, digest

__all__ = ["MAX_EXTENTS", "Mirror", "MirrorPool"]

MAX_EXTENTS = 1 << 31
"""Versions of more extents are not kept: their maps would be too large."""

DATA_SUFFIX = ".data"
MAP_SUFFIX = ".map"

_ABSENT, _PRESENT, _VERIFIED = 0, 1, 2
_PIECE = 1 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Mirror:
    """One version's sparse file and presence map. Methods may be called from any thread.

    Files are opened when first needed, and can be closed at any time: who is using them keeps them open until
    it is done.

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
        self._changing = threading.Lock()  # of bytes; taken before the other
        self._evictions = 0
        self._punching = False
        self._states: npt.NDArray[np.uint8] | None = None
        self._fds: tuple[int, int] | None = None
        self._users = 0
        self._closing = False
        self._removed = False

    @property
    def data_file(self) -> Path:
        """Where the bytes are."""
        return self._pool.directory / (self.name + DATA_SUFFIX)

    @property
    def map_file(self) -> Path:
        """Where the presence map is."""
        return self._pool.directory / (self.name + MAP_SUFFIX)

    # -- presence --------------------------------------------------------------------------------

    def present(self, extents: Sequence[Extent]) -> list[bool]:
        """Return which extents are present, whether or not they have been verified."""
        with self._open() as (_, _, states):
            return [bool(states[extent.number]) for extent in extents]

    def unverified(self, extents: Sequence[Extent]) -> list[Extent]:
        """Return the extents that are absent, or present from before this process opened the mirror."""
        with self._open() as (_, _, states):
            return [extent for extent in extents if states[extent.number] != _VERIFIED]

    def numbers(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the extents present, ascending."""
        with self._open() as (_, _, states):
            return np.flatnonzero(states)

    # -- bytes -----------------------------------------------------------------------------------

    def read(self, extents: Sequence[Extent]) -> tuple[list[bytes | None], list[Extent], int]:
        """Return the bytes of the extents that are present.

        Returns
        -------
        pieces : list of bytes or None
            None where absent.
        rejected : list of Extent
            Those that were present but did not match their digest; they are absent now.
        verified : int
            How many were checked against their digest.

        Raises
        ------
        OSError
            If the files cannot be read.
        """
        pieces: list[bytes | None] = []
        rejected: list[Extent] = []
        verified = 0
        with self._open() as (data_fd, map_fd, states):
            for extent in extents:
                evictions = self._evictions  # before the state: see `evict`
                state = states[extent.number]
                piece = _pread(data_fd, extent.size, extent.offset) if state else None
                if piece is not None and (
                    state == _PRESENT or len(piece) != extent.size or self._evictions != evictions
                ):
                    verified += 1
                    if digest(piece) != extent.digest:
                        piece = None
                    if not self._judge(extent, piece is not None, evictions, map_fd, states):
                        rejected.append(extent)
                pieces.append(piece)
        return pieces, rejected, verified

    def check(self, extents: Sequence[Extent]) -> tuple[list[bytes | None], list[Extent], int]:
        """Do what `read` does, and trust no check that was made before.

        Raises
        ------
        OSError
            If the files cannot be read.
        """
        with self._open() as (_, _, states):
            with self._lock:
                for extent in extents:
                    if states[extent.number] == _VERIFIED:
                        states[extent.number] = _PRESENT
            return self.read(extents)

    def _judge(
        self, extent: Extent, sound: bool, evictions: int, map_fd: int, states: npt.NDArray[np.uint8]
    ) -> bool:
        """Note what the check of an extent gave; False if this made it absent."""
        with self._lock:
            if states[extent.number] == _ABSENT or self._evictions != evictions:
                return True  # what was read says nothing of what is there now
            if sound:
                if not self._punching:  # a hole may overlap it
                    states[extent.number] = _VERIFIED
                return True
            states[extent.number] = _ABSENT
            _pwrite(map_fd, b"\0", extent.number)
            return False

    def write(self, items: Sequence[tuple[Extent, bytes]]) -> tuple[list[Extent], OSError | None]:
        """Keep the bytes of extents, which have been checked against their digests.

        Returns
        -------
        new : list of Extent
            Those kept that were absent before.
        error : OSError or None
            What stopped it, if the disk is full or cannot be written.
        """
        new: list[Extent] = []
        error: OSError | None = None
        try:
            # no hole is punched between the bytes and their marks
            with self._open() as (data_fd, map_fd, states), self._changing:
                written: list[Extent] = []
                try:
                    for extent, data in items:
                        if states[extent.number] != _VERIFIED:
                            _pwrite(data_fd, data, extent.offset)
                            written.append(extent)
                except OSError as full:
                    error = full
                if written:
                    self._pool.sync(data_fd)
                    self._mark(written, map_fd, states, new)
                    self._pool.sync(map_fd)
        except OSError as broken:
            error = broken
        return new, error

    def _mark(
        self, written: Sequence[Extent], map_fd: int, states: npt.NDArray[np.uint8], new: list[Extent]
    ) -> None:
        """Mark extents as present; those that were absent are added to `new`."""
        for extent in written:
            with self._lock:
                _pwrite(map_fd, b"\1", extent.number)
                if states[extent.number] == _ABSENT:
                    new.append(extent)
                states[extent.number] = _VERIFIED

    def clear(self, numbers: npt.NDArray[np.int64]) -> None:
        """Make extents absent.

        Raises
        ------
        OSError
        """
        with self._open() as (_, map_fd, states), self._lock:
            states[numbers] = _ABSENT
            for start, stop in _runs(numbers, numbers + 1):
                _pwrite(map_fd, bytes(stop - start), start)

    def evict(
        self, numbers: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
    ) -> tuple[int, int, OSError | None]:
        """Make extents absent and give their space back.

        Parameters
        ----------
        numbers : ndarray of int64, shape (n,)
            Ascending.
        offsets, sizes : ndarray of int64, shape (n,)
            Where they are in the file, in bytes.

        Returns
        -------
        count, nbytes : int
            The extents that were present before, and their sizes in all.
        error : OSError or None
            What kept it from freeing all the space.
        """
        count = nbytes = 0
        try:
            with self._open() as (data_fd, map_fd, states), self._exclusion():
                with self._lock:
                    present = states[numbers] != _ABSENT
                    states[numbers] = _ABSENT
                    np.minimum(states, _PRESENT, out=states)
                    # Who saw a state from before this line sees the count change after its read of the bytes,
                    # as the holes come later still.
                    self._evictions += 1
                    count, nbytes = int(np.count_nonzero(present)), int(sizes[present].sum())
                    for start, stop in _runs(numbers, numbers + 1):
                        _pwrite(map_fd, bytes(stop - start), start)
                order = np.argsort(offsets)
                for start, stop in _runs(offsets[order], (offsets + sizes)[order]):
                    punch(data_fd, start, stop - start)
        except OSError as error:
            return count, nbytes, error
        return count, nbytes, None

    @contextlib.contextmanager
    def _exclusion(self) -> Iterator[None]:
        """Keep bytes from being written and checks from being believed."""
        with self._changing:
            self._punching = True
            try:
                yield
            finally:
                self._punching = False

    # -- files -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
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
            piece = _pread(map_fd, min(_PIECE, self.nextents - start), start) or b""
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
        Each takes two file descriptors. More are open only while more are being used at once.
    durable : bool
        Whether what was written is to survive the machine, not just this process.
    """

    def __init__(self, directory: Path, max_open: int = 128, *, durable: bool = False) -> None:
        self.directory = directory
        self._durable = durable
        self._max_open = max_open
        self._open: dict[Mirror, None] = {}  # oldest first
        self._lock = threading.Lock()

    def mirror(self, name: str, size: int, nextents: int) -> Mirror:
        """Return the mirror of a version; nothing is opened yet."""
        return Mirror(self, name, size, nextents)

    def sync(self, fd: int) -> None:
        """Force what was written to the disk, if it is to be durable.

        Raises
        ------
        OSError
        """
        if self._durable:
            _fdatasync(fd)

    def used(self, mirror: Mirror) -> None:
        """Note that a mirror has its files open, and close those unused for longest above the bound."""
        with self._lock:
            self._open.pop(mirror, None)
            self._open[mirror] = None
            excess = len(self._open) - self._max_open
            oldest = list(islice(self._open, excess)) if excess > 0 else []
            for other in oldest:
                del self._open[other]
        for other in oldest:
            other.close()

    def __len__(self) -> int:
        return len(self._open)

    def forget(self, mirror: Mirror) -> None:
        """Note that a mirror has closed its files."""
        with self._lock:
            self._open.pop(mirror, None)

    def close(self) -> None:
        """Close all mirrors."""
        with self._lock:
            mirrors = list(self._open)
            self._open.clear()
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


_fdatasync = getattr(os, "fdatasync", os.fsync)

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


def _pread(fd: int, size: int, offset: int) -> bytes:
    """Read exactly `size` bytes, or fewer where the file ends."""
    data = _pread_once(fd, size, offset)
    while 0 < len(data) < size:
        more = _pread_once(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    done = _pwrite_once(fd, data, offset)
    while done < len(data):
        done += _pwrite_once(fd, memoryview(data)[done:], offset + done)


def _runs(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Join ranges, ascending, where one begins at or before the end of those before it."""
    if not len(starts):
        return iter(())
    reached = np.maximum.accumulate(stops)
    breaks = np.flatnonzero(starts[1:] > reached[:-1]) + 1
    firsts = starts[np.concatenate([[0], breaks])]
    lasts = reached[np.concatenate([breaks - 1, [len(starts) - 1]])]
    return zip(firsts.tolist(), lasts.tolist(), strict=True)
