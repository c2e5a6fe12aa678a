"""Answers that are blocks as they are stored: decoded here, in threads, right into the result.

Blosc2 takes a second to import. So the first small read of a process does without; those after it, and large
ones, are worth it.
"""

from __future__ import annotations

import math
import os
import struct
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from caterva2.errors import Caterva2Error, Corrupt
from caterva2.model.grid import PIECE_BYTES, Cell, ChunkGrid
from caterva2.model.selection import Selection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["BLOCKS", "Decoders", "Layout", "read_blocks"]

BLOCKS = "application/vnd.caterva2.blocks"

LARGE_BYTES = 8 * 1024 * 1024
"""Reads from this size on, in bytes, are worth the import of Blosc2."""

SHARE_BYTES = 512 * 1024
"""It pays to give another thread this much to decode, in bytes."""

SLACK_BYTES = 1 << 20
"""What a record may have beyond the data it is decoded to: header, block starts, dictionary, in bytes."""

_SIZE = struct.Struct("<I")


class Stream(Protocol):
    """Where an answer is read from."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end."""
        ...

    def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes, or raise."""
        ...

    def read_into(self, target: memoryview) -> None:
        """Fill a buffer, or raise."""
        ...


class Decoders:
    """The threads in which a client decodes, started when there is work. Can be used by several threads."""

    def __init__(self) -> None:
        self.threads = max(1, os.cpu_count() or 1)
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0
        self._has_read = False
        self._of_thread = threading.local()

    def wanted(self, nbytes: int) -> bool:
        """Return whether a read of so many bytes is to be decoded here; to be asked once for each read."""
        first, self._has_read = not self._has_read, True
        return nbytes >= LARGE_BYTES or not first or "blosc2" in sys.modules

    def executor(self) -> ThreadPoolExecutor:
        """Return the pool of threads of this process: those of its parent are not here after a fork."""
        executor = self._executor
        if executor is None or self._process != os.getpid():
            executor = self._executor = ThreadPoolExecutor(self.threads, "caterva2-decode")
            self._process = os.getpid()
        return executor

    def scratch(self, use: str, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return memory of this thread for some use: at least so many bytes, until the next call for it."""
        import numpy as np

        kept: npt.NDArray[np.uint8] | None = getattr(self._of_thread, use, None)
        if kept is None or len(kept) < nbytes:
            kept = np.empty(nbytes, np.uint8)
            setattr(self._of_thread, use, kept if nbytes <= PIECE_BYTES else None)
        return kept

    def close(self) -> None:
        """Let the threads end that are idle."""
        executor, self._executor = self._executor, None
        if executor is not None and self._process == os.getpid():
            executor.shutdown(wait=False)


@dataclass(frozen=True)
class Layout:
    """How the elements of an array lie in its blocks.

    Attributes
    ----------
    grid : ChunkGrid
    dtype : numpy.dtype
    """

    grid: ChunkGrid
    dtype: np.dtype[Any]

    @cached_property
    def blocksize(self) -> int:
        """Size of a decoded block, in bytes."""
        return math.prod(self.grid.blocks) * self.dtype.itemsize

    @cached_property
    def most(self) -> int:
        """Largest record that there can be, in bytes."""
        return self.grid.nblocks * self.blocksize + SLACK_BYTES


@dataclass(slots=True)
class _Share:
    """Records that are decoded by one thread."""

    layout: Layout
    target: npt.NDArray[Any]
    decoders: Decoders
    cells: list[Cell] = field(default_factory=list)
    records: list[memoryview] = field(default_factory=list)
    nbytes: int = 0

    def add(self, cell: Cell, record: memoryview) -> None:
        self.cells.append(cell)
        self.records.append(record)
        self.nbytes += len(cell.blocks) * self.layout.blocksize

    def decode(self) -> None:
        from caterva2.frame.sent import decode_record

        layout = self.layout
        scratch = self.decoders.scratch(
            "decoded", max(len(cell.blocks) for cell in self.cells) * layout.blocksize
        )
        for cell, record in zip(self.cells, self.records, strict=True):
            decode_record(record, layout.grid, cell, self.target, scratch)


class _Given:
    """Shares that other threads decode, as far as they are free; this one does what they cannot take.

    A context manager: when it is left, nothing is under way any more.
    """

    def __init__(self, decoders: Decoders, threads: int) -> None:
        self._decoders = decoders
        self._threads = threads
        self._under_way: list[tuple[Future[None], _Share]] = []

    def __enter__(self) -> Self:
        return self

    def give(self, share: _Share) -> None:
        """Have a share decoded, now or soon; raises what decoding an earlier one did."""
        for future, _ in self._under_way:
            if future.done():
                future.result()
        self._under_way = [one for one in self._under_way if not one[0].done()]
        if len(self._under_way) < self._threads:
            self._under_way.append((self._decoders.executor().submit(share.decode), share))
        else:
            share.decode()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = [share for future, share in self._under_way if future.cancel()]  # which nobody has begun
        errors = [future.exception() for future, _ in self._under_way if not future.cancelled()]
        if kind is None:
            for failed in filter(None, errors):
                raise failed
            for share in left:
                share.decode()


def read_blocks(
    stream: Stream,
    layout: Layout,
    selection: Selection,
    target: npt.NDArray[Any],
    decoders: Decoders,
    *,
    alone: bool = False,
) -> None:
    """Decode an answer into memory.

    Parameters
    ----------
    stream : Stream
    layout : Layout
        Of the array.
    selection : Selection
        What was asked for, without dropped and reversed dimensions.
    target : ndarray
        Of the selection's counts and the array's dtype.
    decoders : Decoders
    alone : bool
        Others are not to help: they are busy with other parts.

    Raises
    ------
    Caterva2Error
        If the answer is malformed, or of something else.
    Unsupported
        If it takes more than the blocks to decode them.
    Unavailable
        If the answer ends too early.
    """
    share = _Share(layout, target, decoders)
    try:
        with _Given(decoders, 0 if alone else decoders.threads) as given:
            for cell in layout.grid.pieces(selection, layout.blocksize):
                if share.nbytes >= SHARE_BYTES:
                    given.give(share)
                    share = _Share(layout, target, decoders)
                kept = decoders if alone and not share.cells else None
                share.add(cell, _record(stream, layout.most, kept))
            share.decode()  # here: while the others are at theirs
    except Corrupt as error:
        raise Caterva2Error(f"the answer is not what was asked for: {error}") from error
    if stream.read(1):
        raise Caterva2Error("the answer has more blocks than were asked for")


def _record(stream: Stream, most: int, kept: Decoders | None) -> memoryview:
    """Return a record, in memory that its thread keeps if it is decoded before the next one is received."""
    import numpy as np

    (size,) = _SIZE.unpack(stream.read_exactly(_SIZE.size))
    if size > most:
        raise Caterva2Error(f"the answer has a block of {size:,} bytes, which is not what was asked for")
    # neither is filled with zeros first
    memory = np.empty(size, np.uint8) if kept is None else kept.scratch("received", size)
    record = memory[:size].data
    stream.read_into(record)
    return record
