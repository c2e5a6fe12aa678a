"""A `Source` over the originals: the files below the published directories.

A request under way when its file is replaced by another (``rename``) ends with the version it began with; the
next one for that version is told `Changed`. See `caterva2.source.original` for how bytes are read.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from caterva2.errors import Changed, Corrupt, Unavailable
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.source.ahead import Ahead
from caterva2.source.original import LocalVersion, Moved, Reading, make_head, make_page, read_extents

__all__ = ["LocalSource", "LocalStats", "Originals"]

PIECE_BYTES = 1024 * 1024
"""Streams come in pieces of this size, in bytes."""

HEADS_KEPT = 1024
PAGES_KEPT = 128

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EACCES, errno.EPERM})
"""What opening a file that was replaced by something else, moved or withdrawn fails with."""

K = TypeVar("K")
V = TypeVar("V")

log = logging.getLogger(__name__)


class Originals(Protocol):
    """What a `LocalSource` must be told: which versions are current, and where manifests are kept."""

    def version(self, path: DatasetPath) -> LocalVersion:
        """Return the current version of a dataset; called on the event loop, does not block.

        Raises
        ------
        NotFound
            If there is no such dataset.
        """
        ...

    def check(self, path: DatasetPath) -> None:
        """Raise `Unavailable` if the files of a dataset's root cannot be reached now; does not block."""
        ...

    def suspect(self, path: DatasetPath) -> None:
        """Hear, on the event loop, that a file is not the version that is current: it is to be looked at."""
        ...

    def load_head(self, path: DatasetPath, etag: str) -> bytes | None:
        """Return the encoded head of a version, None if it is not kept; called in threads."""
        ...

    def save_head(self, path: DatasetPath, etag: str, data: bytes) -> None:
        """Keep a head that was made anew; called in threads."""
        ...

    def load_page(self, path: DatasetPath, etag: str, number: int) -> bytes | None:
        """Return an encoded page of a version, None if it was not made yet; called in threads."""
        ...

    def save_page(self, path: DatasetPath, etag: str, number: int, data: bytes) -> None:
        """Keep a page that was made; called in threads."""
        ...


@dataclass(slots=True)
class LocalStats:
    """Counters of a `LocalSource`.

    Attributes
    ----------
    damaged : int
        Heads and pages that were not what was kept, and were made anew.
    pages_made : int
        Pages of manifests that were made.
    bytes_hashed : int
        Bytes of originals read to make them.
    bytes_read : int
        Bytes of originals read for requests.
    changed : int
        Requests that found their version gone.
    """

    damaged: int = 0
    pages_made: int = 0
    bytes_hashed: int = 0
    bytes_read: int = 0
    changed: int = 0


class _Recent(Generic[K, V]):
    """The values used last, at most so many; each is made once, whoever asks meanwhile."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, V] = OrderedDict()
        self._making: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> V:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(make())
            task.add_done_callback(lambda done: self._made(key, done))
        return await asyncio.shield(task)

    def _made(self, key: K, task: asyncio.Task[V]) -> None:
        del self._making[key]
        if not task.cancelled() and task.exception() is None:
            self._values[key] = task.result()
            if len(self._values) > self._limit:
                self._values.popitem(last=False)

    async def close(self) -> None:
        """Give up what is being made."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class LocalSource:
    """A `caterva2.source.protocol.Source` over originals. It belongs to one event loop.

    Parameters
    ----------
    originals : Originals
    executor : Executor
        Where files are read and hashed.

    Attributes
    ----------
    stats : LocalStats
    """

    def __init__(self, originals: Originals, executor: Executor) -> None:
        self._originals = originals
        self._executor = executor
        self.stats = LocalStats()
        self._heads: _Recent[tuple[DatasetPath, str], Head] = _Recent(HEADS_KEPT)
        self._pages: _Recent[tuple[DatasetPath, str, int], Page] = _Recent(PAGES_KEPT)
        self._ahead = Ahead(self._make_ahead)

    async def close(self) -> None:
        """Give up the heads and pages that are being made."""
        await self._ahead.close()
        await self._heads.close()
        await self._pages.close()

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version; see `Source.head`."""
        version = self._originals.version(path)
        if etag is not None and etag != version.etag:
            self._gone(path, etag, version.etag)
        return await self._heads.get((path, version.etag), lambda: self._load_or_make_head(path, version))

    async def pages(
        self,
        head: Head,
        numbers: Sequence[int],
        known: Mapping[int, Page] | None = None,  # noqa: ARG002  # nothing is moved
    ) -> list[Page]:
        """Return pages of a version; those that nobody asked for yet are made now. See `Source.pages`."""
        version = self._current(head)
        if wrong := [number for number in numbers if not 0 <= number < head.npages]:
            raise IndexError(f"{head.path} has {head.npages} pages, there is no page {wrong[0]}")
        wanted = [self._page(head, version, number) for number in numbers]
        return [await wanted[0]] if len(wanted) == 1 else await asyncio.gather(*wanted)

    async def read(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of extents; see `Source.read`."""
        version = self._current(head)
        if not extents:
            return []
        self._originals.check(head.path)
        try:
            data = await self._run(read_extents, version, extents)
        except (OSError, Corrupt) as error:
            self._explain(head.path, head.etag, error)
        self.stats.bytes_read += sum(map(len, data))
        return data

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Do nothing: all is here."""

    async def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a version's file; see `Source.stream`."""
        version = self._current(head)
        if start >= stop:
            return
        self._originals.check(head.path)
        reading = Reading(version)
        job: Future[bytes] | None = None
        try:
            for offset in range(start, stop, PIECE_BYTES):
                job = self._executor.submit(reading.read, offset, min(PIECE_BYTES, stop - offset))
                try:
                    data = await asyncio.wrap_future(job)
                except (OSError, Corrupt) as error:
                    self._explain(head.path, head.etag, error)
                self.stats.bytes_read += len(data)
                yield data
        finally:
            # A reader that goes away leaves a read under way: the descriptor is closed behind it
            if job is not None:
                job.add_done_callback(lambda _: reading.close())

    # -- manifests -------------------------------------------------------------------------------

    async def _load_or_make_head(self, path: DatasetPath, version: LocalVersion) -> Head:
        data = await self._run(self._originals.load_head, path, version.etag)
        if data is None:  # replaced between the look at the version and this one
            self._gone(path, version.etag)
        try:
            return _head_of(data, path, version.etag)
        except Corrupt as error:
            self._count_damage(path, error)
        self._originals.check(path)
        try:
            head = await self._run(make_head, version, path)
        except (OSError, Corrupt) as error:
            self._explain(path, version.etag, error)
        await self._run(lambda: self._originals.save_head(path, version.etag, head.encode()))
        return head

    async def _make_ahead(self, head: Head, number: int) -> None:
        await self._page(head, self._current(head), number, ahead=True)

    async def _page(self, head: Head, version: LocalVersion, number: int, *, ahead: bool = False) -> Page:
        make = partial(self._load_or_make_page, head, version, number, ahead=ahead)
        return await self._pages.get((head.path, head.etag, number), make)

    async def _load_or_make_page(
        self, head: Head, version: LocalVersion, number: int, *, ahead: bool
    ) -> Page:
        path, etag = head.path, head.etag
        data = await self._run(self._originals.load_page, path, etag, number)
        if data is not None:
            try:
                return Page.decode(data, head, number)
            except Corrupt as error:
                self._count_damage(path, error)
        self._originals.check(path)
        try:
            page, nbytes = await self._run(make_page, version, head, number)
        except (OSError, Corrupt) as error:
            self._explain(path, etag, error)
        self.stats.pages_made += 1
        self.stats.bytes_hashed += nbytes
        if not ahead:
            self._ahead.note(head, number)
        await self._run(lambda: self._originals.save_page(path, etag, number, page.encode()))
        return page

    def _count_damage(self, path: DatasetPath, error: Corrupt) -> None:
        self.stats.damaged += 1
        log.warning("the manifest of %s was kept and is damaged, to be made anew: %s", path, error)

    # -- versions --------------------------------------------------------------------------------

    def _current(self, head: Head) -> LocalVersion:
        version = self._originals.version(head.path)
        if version.etag != head.etag:
            self._gone(head.path, head.etag, version.etag)
        return version

    def _gone(self, path: DatasetPath, etag: str, current: str | None = None) -> NoReturn:
        self.stats.changed += 1
        raise Changed(str(path), etag, current)

    def _explain(self, path: DatasetPath, etag: str, error: OSError | Corrupt) -> NoReturn:
        """Raise what a reader must know of an error that reading a file gave."""
        if isinstance(error, Corrupt) and not isinstance(error, Moved):
            raise error
        if isinstance(error, OSError) and error.errno not in _GONE:
            raise Unavailable(f"{path} cannot be read now: {error.strerror or error}") from error
        self._originals.suspect(path)
        self._originals.check(path)
        self._gone(path, etag)

    async def _run(self, function: Callable[..., V], *args: object) -> V:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _head_of(data: bytes, path: DatasetPath, etag: str) -> Head:
    head = Head.decode(data)
    if (head.path, head.etag) != (path, etag):
        raise Corrupt(f"it is the head of {head.path} at {head.etag}")
    return head
