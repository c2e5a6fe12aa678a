"""A root's directory, compared with what is announced of it. All of this blocks: it runs in a thread."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from caterva2.publisher.scan import Found, Scan, Scanner
from caterva2.publisher.store import PublisherStore, Record
from caterva2.publisher.versions import Taken, Versions, VersionStats, Wait
from caterva2.source.files import Walker

__all__ = ["Candidate", "Difference", "DirectoryLost", "Outcome", "Refused", "RootDirectory"]

log = structlog.get_logger(__name__)


class DirectoryLost(Exception):
    """The directory of a root is not there, or not the one that it was."""


@dataclass(slots=True)
class Difference:
    """What is not as it was announced.

    Attributes
    ----------
    changed : dict of str to Found
        Files that are new or have another status.
    gone : list of str
        Datasets that have no file any more.
    scan : Scan
        What was seen.
    """

    changed: dict[str, Found] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    scan: Scan = field(default_factory=Scan)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to be taken: its dataset's name, what was seen of it, what is known, whether it was quiet."""

    name: str
    found: Found
    previous: Record | None
    settled: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A file cannot be opened, and will not be tried again as it is."""

    reason: str


Outcome = Taken | Wait | Refused


class RootDirectory:
    """The directory of a root. Used by one thread at a time.

    Parameters
    ----------
    root : str
    directory : str
        Absolute path.
    store : PublisherStore
    stats : VersionStats
    """

    def __init__(self, root: str, directory: str, store: PublisherStore, stats: VersionStats) -> None:
        self.root = root
        self.directory = directory
        self.scanner = Scanner(root, directory)
        self.generation_floors: dict[str, int] = {}
        self._store = store
        self._versions = Versions(root, directory, store.origin, self._next_generation, stats)
        self._device = store.device(root, directory)
        self._identity: tuple[int, int] | None = None
        self._generations: dict[str, int] = {}  # of what is being taken
        self._refused: dict[str, Found] = {}
        self._reasons: set[tuple[str, str]] = set()

    def is_same(self) -> bool:
        """Return whether the directory is the one that was last compared."""
        try:
            return self._look_at_it() == self._identity
        except DirectoryLost:
            return self._identity is None

    def compare(self, records: Mapping[str, Record], names: Collection[str] | None) -> Difference:
        """Compare the directory with what is announced.

        Parameters
        ----------
        records : mapping of str to Record
            What is announced; may grow and shrink meanwhile.
        names : collection of str or None
            Look at or below these names only; None looks at all.

        Raises
        ------
        DirectoryLost
            If it is not there, was replaced while it was looked at, or is empty and on another device than
            it was: what was mounted on it is not mounted any more.
        """
        identity = self._look_at_it()
        if identity != self._identity:
            names = None
        try:
            scan = self.scanner.scan() if names is None else self.scanner.look(names)
        except OSError as error:
            raise DirectoryLost(error.strerror or str(error)) from error
        if self._look_at_it() != identity:
            raise DirectoryLost("it was replaced while it was looked at")
        if names is None:
            self._check_mounted(scan, records, identity[0])
            self._identity = identity
        if scan.files or scan.unreadable:
            self._remember_device(identity[0])
        return self._difference(records, names, scan)

    def _look_at_it(self) -> tuple[int, int]:
        try:
            status = Path(self.directory).stat()
        except OSError as error:
            raise DirectoryLost(error.strerror or str(error)) from error
        if not stat.S_ISDIR(status.st_mode):
            raise DirectoryLost("it is not a directory")
        return status.st_dev, status.st_ino

    def _check_mounted(self, scan: Scan, records: Mapping[str, Record], device: int) -> None:
        is_empty = not scan.files and not scan.unreadable
        if is_empty and records and self._device is not None and self._device != device:
            raise DirectoryLost("it is empty and on another device: nothing is mounted there")

    def _remember_device(self, device: int) -> None:
        if self._device != device:
            self._store.set_device(self.root, self.directory, device)
            self._device = device

    def _difference(
        self, records: Mapping[str, Record], names: Collection[str] | None, scan: Scan
    ) -> Difference:
        difference = Difference(scan=scan)
        for name, found in scan.files.items():
            record = records.get(name)
            if (record is None or record.key != found.key) and self._refused.get(name) != found:
                difference.changed[name] = found
        looked = None if names is None else frozenset(names)
        unreadable = frozenset(scan.unreadable)
        for name in list(records):
            if name in scan.files or (looked is not None and not _is_below(name, looked)):
                continue
            if not unreadable or not _is_below(name, unreadable):
                difference.gone.append(name)
        return difference

    # -- taking ----------------------------------------------------------------------------------

    def take(self, candidates: Iterable[Candidate]) -> list[tuple[Candidate, Outcome]]:
        """Take versions of files, and keep those that could be.

        Raises
        ------
        sqlite3.Error
            If they cannot be kept.
        """
        candidates = list(candidates)
        self._generations = self._store.generations(self.root, [candidate.name for candidate in candidates])
        with Walker() as walker:
            outcomes = [(candidate, self._take(candidate, walker)) for candidate in candidates]
        taken = [(c.name, o.record, o.head) for c, o in outcomes if isinstance(o, Taken)]
        if taken:
            self._store.save(self.root, taken)
        return outcomes

    def _take(self, candidate: Candidate, walker: Walker) -> Outcome:
        name, found = candidate.name, candidate.found
        try:
            return self._versions.take(
                name, found, candidate.previous, settled=candidate.settled, walker=walker
            )
        except FileNotFoundError:
            return Wait("is gone")
        except PermissionError as error:
            reason = error.strerror or "not permitted"
        except OSError as error:
            self._say(name, error.strerror or str(error))
            return Wait(error.strerror or str(error))
        except Exception as error:  # one file that surprises us must not stop the others
            log.exception("cannot take version", root=self.root, name=name)
            reason = f"cannot be described: {error!r}"
        self._refused[name] = found
        self._say(name, reason)
        return Refused(reason)

    def _say(self, name: str, reason: str) -> None:
        if (name, reason) not in self._reasons:
            self._reasons.add((name, reason))
            log.warning("not published", root=self.root, name=name, reason=reason)

    def _next_generation(self, _root: str, name: str, now_ms: int) -> int:
        last = max(self._generations.get(name, 0), self.generation_floors.pop(name, 0))
        return self._store.generation_after(last, now_ms)


def _is_below(name: str, tops: Collection[str]) -> bool:
    """Return whether a name is one of some, or below one."""
    if name in tops:
        return True
    end = name.rfind("/")
    while end > 0:
        if name[:end] in tops:
            return True
        end = name.rfind("/", 0, end)
    return False
