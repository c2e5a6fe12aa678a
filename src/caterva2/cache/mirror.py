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
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caterva2.cache.fileio import read_at, read_now, write_at
from caterva2.cache.holes import punch
from caterva2.cache.pool import ABSENT, PRESENT, VERIFIED, MirrorFiles, MirrorPool
from caterva2.cache.spans import Spans, joined
from caterva2.model.extents import Extent, digest

__all__ = ["MAX_EXTENTS", "Mirror"]

MAX_EXTENTS = 1 << 31
"""Versions of more extents are not kept: their maps would be too large."""

PAST_END_BYTES = 1 << 20
"""A hole at the end of a file goes on for so much, or its last block would not be inside of it as a whole."""


RUN_BYTES = 1 << 20
"""Extents side by side are read at once up to this many bytes: they are in memory twice, for a moment."""


class Mirror:
    """One version's sparse file and presence map. Methods may be called from any thread.

    Files are opened when first needed; see `caterva2.cache.pool`.

    Parameters
    ----------
    pool, name, size, nextents
        As for `caterva2.cache.pool.MirrorFiles`.
    """

    def __init__(self, pool: MirrorPool, name: str, size: int, nextents: int) -> None:
        self._pool = pool
        self._files = MirrorFiles(pool, name, size, nextents)
        self._lock = threading.Lock()
        self._changing = threading.Lock()  # of bytes; taken before the other
        self._evictions = 0
        self._punching = False

    @property
    def nextents(self) -> int:
        """Number of extent numbers."""
        return self._files.nextents

    @property
    def data_file(self) -> Path:
        """Where the bytes are."""
        return self._files.data_file

    @property
    def map_file(self) -> Path:
        """Where the presence map is."""
        return self._files.map_file

    # -- presence --------------------------------------------------------------------------------

    def unverified(self, extents: Sequence[Extent]) -> list[Extent]:
        """Return the extents that are absent, or present from before this process opened the mirror."""
        with self._files.opened() as (_, _, states):
            return [extent for extent in extents if states[extent.number] != VERIFIED]

    def absent(self, extents: Sequence[Extent]) -> list[Extent]:
        """Return the extents that are absent."""
        with self._files.opened() as (_, _, states):
            return [extent for extent in extents if states[extent.number] == ABSENT]

    def numbers(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the extents present, ascending."""
        with self._files.opened() as (_, _, states):
            return np.flatnonzero(states.copy())  # others write to it meanwhile, which numpy takes ill

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
        known = self._read_known(extents, read_at)
        if known is not None:
            return known, [], 0
        pieces: list[bytes | None] = []
        rejected: list[Extent] = []
        verified = 0
        with self._files.opened() as (data_fd, map_fd, states):
            for extent in extents:
                evictions = self._evictions  # before the state: see `evict`
                state = states[extent.number]
                piece = read_at(data_fd, extent.size, extent.offset) if state else None
                if piece is not None and (
                    state == PRESENT or len(piece) != extent.size or self._evictions != evictions
                ):
                    verified += 1
                    if digest(piece) != extent.digest:
                        piece = None
                    if not self._judge(extent, piece is not None, evictions, map_fd, states):
                        rejected.append(extent)
                pieces.append(piece)
        return pieces, rejected, verified

    def read_now(self, extents: Sequence[Extent], scratch: memoryview) -> list[bytes | None] | None:
        """Return the bytes of the extents that are present, without waiting for the disk.

        Parameters
        ----------
        extents : sequence of Extent
        scratch : memoryview
            As large as they are in all, or larger; see `caterva2.cache.fileio.read_now`.

        Returns
        -------
        list of bytes or None, or None
            As the pieces of `read`. None if the disk had to be waited for, or a digest to be checked.

        Raises
        ------
        OSError
            If the files cannot be read.
        """
        if not self._files.are_open:
            return None
        return self._read_known(extents, partial(read_now, scratch=scratch))

    def _read_known(
        self, extents: Sequence[Extent], read: Callable[[int, int, int], bytes | memoryview | None]
    ) -> list[bytes | None] | None:
        """Read what is known to be right or absent, extents that lie side by side at once; else None."""
        pieces: list[bytes | None] = []
        with self._files.opened() as (data_fd, _, states):
            evictions = self._evictions  # before the states: see `evict`
            found = [states.item(extent.number) for extent in extents]
            if PRESENT in found:
                return None
            stop = 0
            while stop < len(extents):
                first, stop = stop, _run_end(extents, found, stop)
                if found[first] == ABSENT:
                    pieces.append(None)
                    continue
                begin = extents[first].offset
                data = read(data_fd, extents[stop - 1].stop - begin, begin)
                if data is None or len(data) != extents[stop - 1].stop - begin:
                    return None
                for one in extents[first:stop]:
                    pieces.append(bytes(data[one.offset - begin : one.stop - begin]))
            return pieces if self._evictions == evictions else None

    def check(self, extents: Sequence[Extent]) -> tuple[list[bytes | None], list[Extent], int]:
        """Do what `read` does, and trust no check that was made before.

        Raises
        ------
        OSError
            If the files cannot be read.
        """
        with self._files.opened() as (_, _, states):
            with self._lock:
                for extent in extents:
                    if states[extent.number] == VERIFIED:
                        states[extent.number] = PRESENT
            return self.read(extents)

    def _judge(
        self, extent: Extent, sound: bool, evictions: int, map_fd: int, states: npt.NDArray[np.uint8]
    ) -> bool:
        """Note what the check of an extent gave; False if this made it absent."""
        with self._lock:
            if states[extent.number] == ABSENT or self._evictions != evictions:
                return True  # what was read says nothing of what is there now
            if sound:
                if not self._punching:  # a hole may overlap it
                    states[extent.number] = VERIFIED
                return True
            states[extent.number] = ABSENT
            write_at(map_fd, b"\0", extent.number)
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
            with self._files.opened() as (data_fd, map_fd, states), self._changing:
                written: list[Extent] = []
                try:
                    for extent, data in items:
                        if states[extent.number] != VERIFIED:
                            write_at(data_fd, data, extent.offset)
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
                write_at(map_fd, b"\1", extent.number)
                if states[extent.number] == ABSENT:
                    new.append(extent)
                states[extent.number] = VERIFIED

    def clear(self, numbers: npt.NDArray[np.int64]) -> None:
        """Make extents absent.

        Raises
        ------
        OSError
        """
        with self._files.opened() as (_, map_fd, states), self._lock:
            states[numbers] = ABSENT
            self._clear(map_fd, numbers)

    @staticmethod
    def _clear(map_fd: int, numbers: npt.NDArray[np.int64]) -> None:
        for start, stop in zip(*joined(numbers, numbers + 1), strict=True):
            write_at(map_fd, bytes(stop - start), int(start))

    def evict(self, numbers: npt.NDArray[np.int64], known: Spans) -> tuple[int, int, OSError | None]:
        """Make extents absent and give their space back, with what was left of neighbours that went before.

        Parameters
        ----------
        numbers : ndarray of int64, shape (n,)
            Ascending. Those that are not known stay.
        known : Spans
            Where these extents are, and those near them.

        Returns
        -------
        count, nbytes : int
            The extents that were present before, and their sizes in all.
        error : OSError or None
            What kept it from freeing all the space.
        """
        count = nbytes = 0
        going = np.isin(known.numbers, numbers, assume_unique=True)
        numbers = known.numbers[going]
        try:
            with self._files.opened() as (data_fd, map_fd, states), self._exclusion():
                with self._lock:
                    present = states[numbers] != ABSENT
                    states[numbers] = ABSENT
                    np.minimum(states, PRESENT, out=states)
                    # Who saw a state from before this line sees the count change after its read of the bytes,
                    # as the holes come later still.
                    self._evictions += 1
                    count, nbytes = int(np.count_nonzero(present)), int(known.sizes[going][present].sum())
                    self._clear(map_fd, numbers)
                    staying = states[known.numbers] != ABSENT
                for start, stop in zip(*known.around(going, staying), strict=True):
                    past_end = PAST_END_BYTES if stop == self._files.size else 0
                    punch(data_fd, int(start), int(stop - start) + past_end)
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

    def close(self) -> None:
        """Close the files, at once or when those who are using them are done."""
        self._files.close()

    def remove(self) -> None:
        """Delete the files; later use raises `FileNotFoundError`."""
        self._files.remove()


def _run_end(extents: Sequence[Extent], states: Sequence[int], first: int) -> int:
    """Return where a run of extents ends that are present and lie side by side; an absent one is alone."""
    stop = first + 1
    while (
        stop < len(extents)
        and states[first] != ABSENT != states[stop]
        and extents[stop].offset == extents[stop - 1].stop
        and extents[stop].stop - extents[first].offset <= RUN_BYTES
    ):
        stop += 1
    return stop
