"""How missing data is best had: by ranges of blocks, in whole chunks, or as a slice made at the publisher.

Pure functions of what is known: how far the source is and how much it sends, what is missing of a selection,
how well the dataset compresses. Blocks and chunks are kept, a slice is good for its own request alone; so a
slice must be clearly faster to be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from caterva2.frame.geometry import geometry_of
from caterva2.model.grid import ChunkGrid
from caterva2.model.manifest import Head
from caterva2.model.selection import Axis, Selection

__all__ = [
    "Choice",
    "Costs",
    "Explanation",
    "Missing",
    "Way",
    "blocks_touched",
    "chunks_touched",
    "estimate",
    "everything",
    "explained",
    "explaining",
    "level_for",
    "part_bytes_of",
]

Choice = Literal["cached", "blocks", "chunks", "slice"]

LEAST_PART_BYTES = 512 * 1024
MOST_PART_BYTES = 2 * 1024 * 1024
PARTS = 4
"""A slice is made, sent and checked in about so many parts, within these sizes, in bytes, decoded."""

RANGES_PER_REQUEST = 64
REQUEST_BYTES = 8 * 1024 * 1024
"""What is asked for in one request, as in `caterva2.source.byteranges`."""

TOGETHER = 8
"""Requests under way to one source."""

RANGE_S = 30e-6
"""What a byte range costs both sides, in seconds."""

MAKE_S = 0.001
"""What making a slice costs beside decoding and compressing, in seconds."""

DECODE_BYTES_PER_S = 1.5e9
MAKE_BYTES_PER_S = 250e6
"""How fast a publisher decodes blocks, and compresses what it sends."""

SLICE_GROWS = 1.2
"""A slice is compressed faster and worse than what is stored, by this."""

LEAST_SAVED_S = 0.0015
LEAST_SAVED_SHARE = 0.1
"""A slice must save so much, in seconds and of the time of what can be kept."""

BLOCK_PAGE_BYTES = 21
"""What a page of a manifest says of a block, in bytes."""

LEVELS_BY_RATE = ((16e6, 3), (40e6, 2), (100e6, 1))
"""Up to these rates, in bytes per second, these levels of compression pay; above, the fastest codec."""

SMALL_BYTES = 4 * 1024 * 1024
SMALL_LEVEL = 2
"""Slices up to this size, in bytes, are compressed no harder: of few parts, making one is waited for."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way to a source.

    Attributes
    ----------
    round_trip_s : float
        In seconds.
    bytes_per_s : float
    """

    round_trip_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Missing:
    """What is missing of a selection.

    Attributes
    ----------
    block_bytes, blocks : int
        Stored size of the blocks that are missing, and how many they are.
    ranges : int
        About how many byte ranges they are.
    chunk_bytes, chunks : int
        Size and number of all the chunks that they are of.
    pages : int
        Pages of the manifest that must be asked for before.
    page_bytes : int
        What these take.
    """

    block_bytes: int
    blocks: int
    ranges: int
    chunk_bytes: int
    chunks: int
    pages: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What each way would take, in seconds, as estimated."""

    blocks: float
    chunks: float
    slice: float

    @property
    def choice(self) -> Choice:
        """The way to take."""
        kept = min(self.blocks, self.chunks)
        if kept - self.slice > max(LEAST_SAVED_S, LEAST_SAVED_SHARE * kept):
            return "slice"
        return "chunks" if self.chunks < (1 - LEAST_SAVED_SHARE) * self.blocks else "blocks"


# -- what a selection needs ------------------------------------------------------------------------


def blocks_touched(grid: ChunkGrid, selection: Selection) -> int:
    """Return how many blocks hold elements of a selection; a step may make it fewer."""
    return math.prod(map(_blocks_along, selection.axes, grid.chunks, grid.blocks))


def chunks_touched(grid: ChunkGrid, selection: Selection) -> int:
    """Return how many chunks hold elements of a selection; a step may make it fewer."""
    return math.prod(
        _runs_along(axis, chunk) for axis, chunk in zip(selection.axes, grid.chunks, strict=True)
    )


def _run_length(grid: ChunkGrid, selection: Selection) -> float:
    """Return how many of the blocks touched lie one behind the other, on the average."""
    length = 1.0
    for axis, chunk, block in zip(selection.axes[::-1], grid.chunks[::-1], grid.blocks[::-1], strict=True):
        per_chunk = _blocks_along(axis, chunk, block) / max(1, _runs_along(axis, chunk))
        length *= max(1.0, per_chunk)
        if per_chunk < -(-chunk // block):
            break
    return length


def _runs_along(axis: Axis, length: int) -> int:
    if not axis.count:
        return 0
    return min(axis.count, (axis.stop - 1) // length - axis.start // length + 1)


def _blocks_along(axis: Axis, chunk: int, block: int) -> int:
    if not axis.count:
        return 0
    per_chunk = -(-chunk // block)
    first, last = axis.start, axis.stop - 1
    touched = (
        (last // chunk - first // chunk) * per_chunk + last % chunk // block - first % chunk // block + 1
    )
    return min(axis.count, touched)


def everything(head: Head, selection: Selection) -> Missing:
    """Return what a selection needs if nothing of it is here, by the averages of the dataset."""
    grid = geometry_of(head).grid
    chunks, blocks = chunks_touched(grid, selection), blocks_touched(grid, selection)
    chunk_bytes = head.size / max(1, grid.nchunks)
    pages = min(head.npages, max(1, math.ceil(head.npages * chunks / max(1, grid.nchunks))))
    per_page = BLOCK_PAGE_BYTES * grid.nblocks * grid.nchunks / max(1, head.npages)
    return Missing(
        int(blocks * chunk_bytes / max(1, grid.nblocks)),
        blocks,
        math.ceil(blocks / _run_length(grid, selection)),
        int(chunks * chunk_bytes),
        chunks,
        pages,
        int(pages * per_page),
    )


# -- what it takes ---------------------------------------------------------------------------------


def estimate(way: Way, head: Head, selection: Selection, missing: Missing) -> Costs:
    """Return what each way to have a selection would take, in seconds."""
    pages_s = (way.round_trip_s + missing.page_bytes / way.bytes_per_s) if missing.pages else 0.0
    return Costs(
        pages_s + _ranges_s(way, missing.block_bytes, missing.ranges),
        pages_s + _ranges_s(way, missing.chunk_bytes, missing.chunks),
        _slice_s(way, head, selection),
    )


def _ranges_s(way: Way, nbytes: int, ranges: int) -> float:
    requests = max(math.ceil(ranges / RANGES_PER_REQUEST), math.ceil(nbytes / REQUEST_BYTES), 1)
    turns = math.ceil(requests / TOGETHER)
    return turns * way.round_trip_s + nbytes / way.bytes_per_s + ranges * RANGE_S


def _slice_s(way: Way, head: Head, selection: Selection) -> float:
    geometry = geometry_of(head)
    nbytes = selection.size * geometry.dtype.itemsize
    stored_share = min(
        1.0, SLICE_GROWS * head.size / max(1, geometry.grid.nchunks * geometry.chunk_nbytes(0))
    )
    touched = blocks_touched(geometry.grid, selection) * geometry.blocksize
    make_s = touched / DECODE_BYTES_PER_S + nbytes / MAKE_BYTES_PER_S
    send_s = nbytes * stored_share / way.bytes_per_s
    parts = max(1, math.ceil(nbytes / part_bytes_of(nbytes)))
    # the first part is made before anything is sent; of the others the slower of both counts
    busy_s = make_s / parts + max(make_s, send_s) if parts > 1 else make_s + send_s
    return math.ceil(parts / TOGETHER) * way.round_trip_s + MAKE_S + busy_s


def part_bytes_of(nbytes: int) -> int:
    """Return how large the parts of a slice are: one is sent while the next one is made, and by two cores."""
    return min(max(nbytes // PARTS, LEAST_PART_BYTES), MOST_PART_BYTES)


def level_for(bytes_per_s: float, nbytes: int) -> int:
    """Return how hard to compress a slice for a rate; see `caterva2.frame.made.LEVELS`."""
    level = next((level for rate, level in LEVELS_BY_RATE if bytes_per_s <= rate), 0)
    return level if nbytes > SMALL_BYTES else min(level, SMALL_LEVEL)


# -- what was done, for who wants to know ----------------------------------------------------------


@dataclass(slots=True)
class Explanation:
    """How the data of one request was had.

    Attributes
    ----------
    plans : list of (Choice, Costs)
        What was chosen for each part that was not all here, and why.
    upstream_bytes : int
        What was fetched for it, in bytes of body.
    upstream_s : float
        How long that took, in seconds; parts that were fetched at the same time count each.
    """

    plans: list[tuple[Choice, Costs]] = field(default_factory=list)
    upstream_bytes: int = 0
    upstream_s: float = 0.0

    def server_timing(self) -> str:
        """Return it as a value of ``Server-Timing`` (W3C): durations are in milliseconds."""
        if not self.upstream_bytes and all(choice != "slice" for choice, _ in self.plans):
            return "cache;desc=hit"
        counts = {choice: [c for c, _ in self.plans].count(choice) for choice, _ in self.plans}
        choices = " ".join(f"{choice} {count}" if count > 1 else choice for choice, count in counts.items())
        entries = [f'plan;desc="{choices or "blocks"}"']
        for name in ("blocks", "chunks", "slice") if self.plans else ():
            total_s = sum(getattr(costs, name) for _, costs in self.plans)
            entries.append(f"estimate-{name};dur={1e3 * total_s:.1f}")
        cache = "miss" if self.upstream_bytes else "hit"
        return ", ".join(
            [
                *entries,
                f'upstream;dur={1e3 * self.upstream_s:.1f};desc="{self.upstream_bytes} bytes"',
                f"cache;desc={cache}",
            ]
        )


_current: ContextVar[Explanation | None] = ContextVar("caterva2_explanation", default=None)


@contextmanager
def explaining() -> Iterator[Explanation]:
    """Collect how data is had while inside, also in tasks that are begun there."""
    explanation = Explanation()
    token = _current.set(explanation)
    try:
        yield explanation
    finally:
        _current.reset(token)


def explained() -> Explanation | None:
    """Return what is collected now, if anybody wants to know."""
    return _current.get()
