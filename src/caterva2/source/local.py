"""A `Source` over the originals: the files below the published directories.

Bytes are read with ``pread`` from a descriptor of the request's own; they belong to a version only if the
file's status still is the version's after they were read. A request under way when its file is replaced by
another (``rename``) ends with the version it began with; the next one for that version is told `Changed`.
"""

from __future__ import annotations

import asyncio
import errno
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Generic, NoReturn, Protocol, TypeVar

from caterva2.errors import Changed, Corrupt, Unavailable
from caterva2.frame.pages import make_page
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head, Page
from caterva2.model.path import DatasetPath
from caterva2.source.files import LocalFile, StatKey

__all__ = ["LocalSource", "LocalStats", "LocalVersion", "Originals"]

PIECE_BYTES = 1024 * 1024
"""Streams come in pieces of this size, in bytes."""

HEADS_KEPT = 1024
PAGES_KEPT = 128

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EACCES, errno.EPERM})
"""What opening a file that was replaced by something else, moved or withdrawn fails with."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """The current version of a dataset, and the file that has it.

    Attributes
    ----------
    etag : str
    directory : str
        Absolute path of the root's directory.
    file : str
        Path of the file below it, free of links.
    key : StatKey
        Status of the file while it has this version.
    """

    etag: str
    directory: str
    file: str
    key: StatKey


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
        """Return the wire form of a version's head, None if it is not kept; called in threads."""
        ...

    def load_page(self, path: DatasetPath, etag: str, number: int) -> bytes | None:
        """Return the wire form of a page of a version, None if it was not made yet; called in threads."""
        ...

    def save_page(self, path: DatasetPath, etag: str, number: int, data: bytes) -> None:
        """Keep a page that was made; called in threads."""
        ...


@dataclass(slots=True)
class LocalStats:
    """Counters of a `LocalSource`.

    Attributes
    ----------
    pages_made : int
        Pages of manifests that were made.
    bytes_hashed : int
        Bytes of originals read to make them.
    bytes_read : int
        Bytes of originals read for requests.
    changed : int
        Requests that found their version gone.
    """

    pages_made: int = 0
    bytes_hashed: int = 0
    bytes_read: int = 0
    changed: int = 0


class _Recent(Generic[K, V]):
    """The values used last, at most so many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._values[key] = value
        if len(self._values) > self._limit:
            self._values.popitem(last=False)


_PageKey = tuple[DatasetPath, str, int]


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
        self._pages: _Recent[_PageKey, Page] = _Recent(PAGES_KEPT)
        self._making: dict[_PageKey, asyncio.Task[Page]] = {}

    async def close(self) -> None:
        """Give up the pages that are being made."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version; see `Source.head`."""
        version = self._originals.version(path)
        if etag is not None and etag != version.etag:
            self._gone(path, etag, version.etag)
        key = (path, version.etag)
        head = self._heads.get(key)
        if head is None:
            data = await self._run(self._originals.load_head, path, version.etag)
            if data is None:  # replaced between the look at the version and this one
                self._gone(path, version.etag)
            head = Head.decode(data)
            self._heads.put(key, head)
        return head

    async def pages(self, head: Head, numbers: Sequence[int]) -> list[Page]:
        """Return pages of a version; those that nobody asked for yet are made now. See `Source.pages`."""
        version = self._current(head)
        if wrong := [number for number in numbers if not 0 <= number < head.npages]:
            raise IndexError(f"{head.path} has {head.npages} pages, there is no page {wrong[0]}")
        return [await self._page(head, version, number) for number in numbers]

    async def read(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of extents; see `Source.read`."""
        version = self._current(head)
        if not extents:
            return []
        self._originals.check(head.path)
        spans = [(extent.offset, extent.size) for extent in extents]
        try:
            data = await self._run(_read_spans, version, spans)
        except (OSError, Corrupt) as error:
            self._explain(head, error)
        self.stats.bytes_read += sum(size for _, size in spans)
        return data

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Do nothing: all is here."""

    async def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a version's file; see `Source.stream`."""
        version = self._current(head)
        if start >= stop:
            return
        self._originals.check(head.path)
        reading = _Reading(version)
        job: Future[bytes] | None = None
        try:
            for offset in range(start, stop, PIECE_BYTES):
                job = self._executor.submit(reading.read, offset, min(PIECE_BYTES, stop - offset))
                try:
                    data = await asyncio.wrap_future(job)
                except (OSError, Corrupt) as error:
                    self._explain(head, error)
                self.stats.bytes_read += len(data)
                yield data
        finally:
            # A reader that goes away leaves a read under way: the descriptor is closed behind it
            if job is not None:
                job.add_done_callback(lambda _: reading.close())

    # -- pages -----------------------------------------------------------------------------------

    async def _page(self, head: Head, version: LocalVersion, number: int) -> Page:
        key = (head.path, head.etag, number)
        page = self._pages.get(key)
        if page is not None:
            return page
        task = self._making.get(key)
        if task is None:
            task = asyncio.create_task(self._load_or_make(head, version, number))
            self._making[key] = task
            task.add_done_callback(lambda done: self._made(key, done))
        return await asyncio.shield(task)

    def _made(self, key: _PageKey, task: asyncio.Task[Page]) -> None:
        del self._making[key]
        if not task.cancelled() and task.exception() is None:
            self._pages.put(key, task.result())

    async def _load_or_make(self, head: Head, version: LocalVersion, number: int) -> Page:
        path, etag = head.path, head.etag
        data = await self._run(self._originals.load_page, path, etag, number)
        if data is not None:
            return Page.decode(data, head)
        self._originals.check(path)
        try:
            page, nbytes = await self._run(_make_page, version, head, number)
        except (OSError, Corrupt) as error:
            self._explain(head, error)
        self.stats.pages_made += 1
        self.stats.bytes_hashed += nbytes
        await self._run(lambda: self._originals.save_page(path, etag, number, page.encode()))
        return page

    # -- versions --------------------------------------------------------------------------------

    def _current(self, head: Head) -> LocalVersion:
        version = self._originals.version(head.path)
        if version.etag != head.etag:
            self._gone(head.path, head.etag, version.etag)
        return version

    def _gone(self, path: DatasetPath, etag: str, current: str | None = None) -> NoReturn:
        self.stats.changed += 1
        raise Changed(str(path), etag, current)

    def _explain(self, head: Head, error: OSError | Corrupt) -> NoReturn:
        """Raise what a reader must know of an error that reading a file gave."""
        if isinstance(error, Corrupt) and not isinstance(error, _Moved):
            raise error
        if isinstance(error, OSError) and error.errno not in _GONE:
            raise Unavailable(f"{head.path} cannot be read now: {error.strerror or error}") from error
        self._originals.suspect(head.path)
        self._originals.check(head.path)
        self._gone(head.path, head.etag)

    async def _run(self, function: Callable[..., V], *args: object) -> V:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


class _Moved(Corrupt):
    """The file is not the version any more."""


def _check(file: LocalFile, version: LocalVersion) -> None:
    if not file.is_still(version.key):
        raise _Moved(f"{version.file} has changed")


def _open(version: LocalVersion) -> LocalFile:
    """Open the file of a version.

    Its key must match to the last bit: an inode that was let go of belongs to those who had it open before.
    """
    file = LocalFile(version.directory, version.file)
    try:
        if file.key() != version.key:
            raise _Moved(f"{version.file} has changed")
    except BaseException:
        file.close()
        raise
    return file


def _read_spans(version: LocalVersion, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    with _open(version) as file:
        try:
            return [file.read(offset, size) for offset, size in spans]
        finally:
            # Times only grow: if the status is the same behind the last read, it was so behind each
            _check(file, version)


def _make_page(version: LocalVersion, head: Head, number: int) -> tuple[Page, int]:
    nbytes = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal nbytes
        nbytes += size
        return file.read(offset, size)

    with _open(version) as file:
        try:
            return make_page(read, head, number), nbytes
        finally:
            _check(file, version)  # before any complaint about the content


class _Reading:
    """The file of a stream, opened by its first read. Used by one thread at a time."""

    def __init__(self, version: LocalVersion) -> None:
        self._version = version
        self._file: LocalFile | None = None

    def read(self, offset: int, size: int) -> bytes:
        if self._file is None:
            self._file = _open(self._version)
        try:
            return self._file.read(offset, size)
        finally:
            _check(self._file, self._version)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
