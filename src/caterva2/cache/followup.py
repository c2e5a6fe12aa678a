"""The blocks of what was read as slices: fetched in the background, where they will be wanted."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from itertools import islice

from caterva2.cache.batches import in_batches
from caterva2.cache.store import Store
from caterva2.errors import Caterva2Error
from caterva2.frame.decode import block_extents
from caterva2.frame.geometry import geometry_of
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath
from caterva2.model.selection import Selection
from caterva2.source.plan import cell_pieces
from caterva2.source.planner import everything
from caterva2.source.protocol import Source

__all__ = ["FollowUps"]

BATCH_BYTES = 256 * 1024
"""So much is fetched at a time, in bytes, one batch after the other: others wait for no more than that."""

PLANNED = 64
"""Pieces are planned so many at a time."""

REMEMBERED = 32
DATASETS = 1024
"""So many parts of a dataset, of so many datasets, are remembered to have been read."""

WAITING = 8
"""Parts of a dataset that wait for those before them; more are not fetched."""

_Box = tuple[tuple[int, int], ...]

log = logging.getLogger(__name__)


class FollowUps:
    """Fetches the blocks of parts that were read as slices, if they are followed, or read again.

    Of one dataset one part is fetched at a time, in small batches. Belongs to one event loop.

    Parameters
    ----------
    store : Store
        What is here.
    source : Source
        The cache: what is read through it is kept.
    is_followed : callable
        Returns whether a dataset is wanted whether or not it is read again.
    most_bytes : int or None
        Larger parts are left alone: they would push out the rest.
    begun : callable
        Is told of each part that is fetched.
    """

    def __init__(
        self,
        store: Store,
        source: Source,
        is_followed: Callable[[DatasetPath], bool],
        most_bytes: int | None,
        begun: Callable[[], None],
    ) -> None:
        self._store = store
        self._source = source
        self._is_followed = is_followed
        self._most_bytes = most_bytes
        self._begun = begun
        self._read: OrderedDict[tuple[DatasetPath, str], deque[_Box]] = OrderedDict()
        self._waiting: dict[DatasetPath, deque[tuple[Head, Selection]]] = {}
        self._tasks: dict[DatasetPath, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Fetch no more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def under_way(self) -> int:
        """Of how many datasets blocks are being fetched."""
        return len(self._tasks)

    def sliced(self, head: Head, selection: Selection) -> None:
        """Note that a part was read as a slice; its blocks follow, if there is a reason."""
        again = self._was_read(head, selection)
        if not (again or self._is_followed(head.path)):
            return
        if self._most_bytes is not None and everything(head, selection).block_bytes > self._most_bytes:
            return
        waiting = self._waiting.setdefault(head.path, deque())
        if len(waiting) < WAITING:
            waiting.append((head, selection))
        if head.path not in self._tasks:
            task = asyncio.create_task(self._fetch_waiting(head.path))
            self._tasks[head.path] = task
            task.add_done_callback(lambda _task: self._done(head.path))

    async def fetch_chunks(self, head: Head, selection: Selection) -> None:
        """Fetch the chunks of a part whole, if they can be kept; who reads them says what is wrong."""
        with suppress(Caterva2Error):
            await self._source.prepare(head, self._groups(head, selection, whole=True))

    def _done(self, path: DatasetPath) -> None:
        self._tasks.pop(path, None)
        self._waiting.pop(path, None)

    def _was_read(self, head: Head, selection: Selection) -> bool:
        """Return whether a part shares blocks with one that was read before, and remember it."""
        key, box = (head.path, head.etag), _box(head, selection)
        boxes = self._read.setdefault(key, deque(maxlen=REMEMBERED))
        self._read.move_to_end(key)
        if len(self._read) > DATASETS:
            self._read.popitem(last=False)
        again = any(_meet(box, other) for other in boxes)
        if box not in boxes:
            boxes.append(box)
        return again

    # -- fetching --------------------------------------------------------------------------------

    async def _fetch_waiting(self, path: DatasetPath) -> None:
        waiting = self._waiting[path]
        while waiting:
            head, selection = waiting.popleft()
            self._begun()
            try:
                await self._fetch(head, selection)
            except Caterva2Error as error:  # who reads it again says what is wrong
                log.debug("the blocks of %s are not fetched now: %s", path, error)
                return

    async def _fetch(self, head: Head, selection: Selection) -> None:
        async with aclosing(in_batches(self._groups(head, selection), BATCH_BYTES)) as batches:
            async for batch in batches:
                version = self._store.find(head.path, head.etag)
                if version is None or version.superseded:
                    return
                passed_through = self._store.stats.passed_through
                if absent := self._store.absent(version, batch):
                    await self._source.read(head, absent)
                if self._store.stats.passed_through > passed_through:
                    return  # there is no room

    async def _groups(
        self, head: Head, selection: Selection, *, whole: bool = False
    ) -> AsyncGenerator[Sequence[Extent]]:
        geometry = geometry_of(head)
        pieces = cell_pieces(geometry.grid, selection, geometry.blocksize)
        while group := list(islice(pieces, PLANNED)):
            numbers = head.pages_of({piece.nchunk for piece in group})
            pages = dict(zip(numbers, await self._source.pages(head, numbers), strict=True))
            for piece in group:
                page = pages[head.page_of(piece.nchunk)]
                blocks = range(geometry.grid.nblocks) if whole else piece.blocks
                yield block_extents(head, page, piece.nchunk, blocks)


def _box(head: Head, selection: Selection) -> _Box:
    """Return the first and last block along each dimension that hold elements of a selection."""
    grid = geometry_of(head).grid
    return tuple(
        (axis.start // block, (axis.stop - 1) // block)
        for axis, block in zip(selection.axes, grid.blocks, strict=True)
    )


def _meet(one: _Box, other: _Box) -> bool:
    return all(a[0] <= b[1] and b[0] <= a[1] for a, b in zip(one, other, strict=True))
