"""Downloads that can be broken off and go on later.

What has arrived is in ``<name>.part``, and of which version it is in ``<name>.part.json``. The order of
writes: the version, then bytes, then (all there) the time of modification, then the rename. So a part always
is the beginning of the version that is named beside it, and a file that has its own name is complete.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from caterva2.client import protocol
from caterva2.client.records import Download
from caterva2.client.transport import PIECE_BYTES, Transport
from caterva2.client.versions import next_etag
from caterva2.errors import Caterva2Error, Changed, Unavailable
from caterva2.model.path import parse_path

__all__ = ["PartFile", "Version", "download", "version_of"]

Progress = Callable[[int, int], None]

ATTEMPTS = 3
"""How often in a row a transfer may break without a byte of progress, or the dataset change."""

PAUSE_S = 0.3
"""Pause before a broken transfer goes on, in seconds."""


@dataclass(frozen=True, slots=True)
class Version:
    """What is downloaded.

    Attributes
    ----------
    path, etag : str
    size : int
        In bytes.
    mtime_ns : int
        Nanoseconds since the epoch.
    """

    path: str
    etag: str
    size: int
    mtime_ns: int


def download(transport: Transport, path: str, directory: str, progress: Progress | None = None) -> Download:
    """Save a dataset; see `caterva2.client.Client.download`."""
    began = time.perf_counter()
    name = parse_path(path).name.rpartition("/")[2]
    version = _current(transport, path)
    Path(directory).mkdir(parents=True, exist_ok=True)
    fetched = 0
    with PartFile(Path(directory) / name) as part:
        for left in reversed(range(ATTEMPTS)):
            try:
                transfer = Transfer(transport, version, part, progress)
                try:
                    transfer.run()
                finally:
                    fetched += transfer.fetched_bytes
                break
            except Changed as error:
                if not left:
                    raise
                if error.current_etag is None:
                    next_etag(transport, path, version.etag)
                version = _current(transport, path)
        part.finish(version)
    return Download(path, str(part.file), version.size, fetched, time.perf_counter() - began)


def _current(transport: Transport, path: str) -> Version:
    return version_of(path, transport.call(protocol.ask_manifest(path)).body)


def version_of(path: str, manifest: bytes) -> Version:
    """Return the version that the head of a manifest is of.

    That, not the metadata, has the time of modification to the nanosecond.
    """
    from caterva2.model.manifest import Head

    head = Head.decode(manifest)
    return Version(path, head.etag, head.size, head.mtime_ns)


class Transfer:
    """Fills a part file with a version, in as many requests as the connection needs."""

    def __init__(
        self, transport: Transport, version: Version, part: PartFile, progress: Progress | None
    ) -> None:
        self._transport = transport
        self._version = version
        self._part = part
        self._progress = progress
        self.fetched_bytes = 0

    def run(self) -> None:
        """Return when all is there.

        Raises
        ------
        Changed, NotFound, Unavailable
        OSError
            If it cannot be written.
        """
        size = self._version.size
        there = self._part.begin(self._version)
        self._report(there)
        failures = 0
        while there < size:
            before = there
            try:
                self._fetch(there)
            except Unavailable as error:
                there = self._part.size()
                failures = failures + 1 if there == before else 0
                if failures >= ATTEMPTS:
                    hint = f"; {there:,} of {size:,} bytes are kept, a next download goes on from there"
                    raise Unavailable(f"{error}{hint}", error.retry_after_s) from error
                time.sleep(PAUSE_S * failures)
            there = self._part.size()

    def _fetch(self, start: int) -> None:
        version = self._version
        with self._transport.open(protocol.ask_download(version.path, start, version.etag)) as body:
            if body.status != 206:
                raise Caterva2Error(f"{self._transport.url} does not serve ranges of bytes")
            position = start
            while data := body.read(PIECE_BYTES):
                if position + len(data) > version.size:
                    raise Caterva2Error(f"{self._transport.url} sent more of {version.path!r} than there is")
                self._part.append(data)
                position += len(data)
                self.fetched_bytes += len(data)
                self._report(position)
        if position < version.size:
            raise Unavailable(f"the connection to {self._transport.url} broke")

    def _report(self, there: int) -> None:
        if self._progress is not None:
            self._progress(there, self._version.size)


class PartFile:
    """The beginning of a file under a name of its own; a context manager that keeps others off.

    Parameters
    ----------
    file : Path
        Where the whole will be.

    Raises
    ------
    OSError
        On entering: it cannot be opened, or another download is writing it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._path = file.with_name(file.name + ".part")
        self._note = file.with_name(file.name + ".part.json")
        self._descriptor = -1

    def __enter__(self) -> Self:
        if self.file.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a directory of that name is there", str(self.file))
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        while True:
            self._descriptor = os.open(self._path, flags, 0o666)
            try:
                _lock(self._descriptor, self._path)
                # It may have been finished between the opening and the lock
                if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                    return self
            except FileNotFoundError:
                pass
            except BaseException:
                self._close()
                raise
            self._close()

    def __exit__(self, *exc: object) -> None:
        self._close()

    def begin(self, version: Version) -> int:
        """Return how much of a version is there already; what is of another version is dropped.

        Raises
        ------
        OSError
            Without space for the rest.
        """
        note = {"path": version.path, "etag": version.etag, "size": version.size}
        there = self.size()
        if self._read_note() != note or there > version.size:
            os.ftruncate(self._descriptor, 0)
            self._note.write_text(json.dumps(note), encoding="utf-8")
            there = 0
        missing, free = version.size - there, shutil.disk_usage(self.file.parent).free
        if missing > free:
            raise OSError(
                errno.ENOSPC, f"{missing:,} more bytes are needed, {free:,} are free", str(self.file.parent)
            )
        return there

    def append(self, data: bytes) -> None:
        """Write at the end."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def size(self) -> int:
        """Return how many bytes are there."""
        return os.fstat(self._descriptor).st_size

    def finish(self, version: Version) -> None:
        """Give the file its time and its name."""
        self._close()  # Windows does not rename open files
        os.utime(self._path, ns=(version.mtime_ns, version.mtime_ns))
        self._path.replace(self.file)
        self._note.unlink(missing_ok=True)

    def _read_note(self) -> Any:  # Any: JSON that is compared only
        try:
            return json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _lock(descriptor: int, path: Path) -> None:
    """Take the file for this download; where there is no flock, nobody is kept off."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(errno.EBUSY, "another download is writing it", str(path)) from error
    except OSError:
        pass  # a file system without locks
