"""What of a directory can be published. Nothing is opened, nothing is written.

Published are regular files, at any depth, by the names below. Not published are

- names that begin with ``.`` or end with one of `TEMPORARY_SUFFIXES`: hidden or temporary, and all that is
  below such a directory; but for those in `ZARR_V2_METADATA`;
- names that are no valid UTF-8, have control characters or backslashes, or are too long with their root
  (`caterva2.model.path`);
- sockets, fifos and devices;
- symbolic links that leave the directory, lead nowhere, or lead to one of their own parents. Other links are
  followed: what they lead to is published under both names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from caterva2.errors import InvalidPath
from caterva2.model.path import MAX_PATH_BYTES, parse_path
from caterva2.source.files import StatKey, stat_key

__all__ = ["TEMPORARY_SUFFIXES", "Found", "Scan", "Scanner", "is_hidden"]

TEMPORARY_SUFFIXES = ("~", ".part", ".partial", ".tmp", ".temp", ".swp", ".swx", ".crdownload")
"""Endings, in lower case, of the names that editors and downloads give to files that are not ready."""

ZARR_V2_METADATA = frozenset({".zarray", ".zattrs", ".zgroup", ".zmetadata"})
"""Files that say what the arrays and groups of a Zarr directory of format 2 are."""

MAX_DEPTH = 64
"""Directories within directories."""

MAX_LINKS = 4
"""Links on the way to a file: a few directories full of links to each other have endlessly many paths."""

log = structlog.get_logger(__name__)


def is_hidden(name: str) -> bool:
    """Return whether a file or directory of this base name is hidden or temporary."""
    if name.startswith("."):
        return name not in ZARR_V2_METADATA
    return name.lower().endswith(TEMPORARY_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that can be published.

    Attributes
    ----------
    file : str
        Its path below the root's directory, free of links; the same as its name unless there are some.
    key : StatKey
    """

    file: str
    key: StatKey


@dataclass(slots=True)
class Scan:
    """What a scan found.

    Attributes
    ----------
    files : dict of str to Found
        By name.
    directories : set of str
        Absolute paths of the directories seen, free of links: to be watched.
    unreadable : set of str
        Names of directories that the system failed to list: what is below them is not known.
    """

    files: dict[str, Found] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a scan is.

    Attributes
    ----------
    name : str
        By which way it came there.
    file : str
        Real path below the root's directory.
    real : str
        Real path, absolute.
    parents : tuple of str
        Real paths of the directories on the way.
    links : int
        How many links were on the way.
    """

    name: str
    file: str
    real: str
    parents: tuple[str, ...]
    links: int

    @property
    def is_too_deep(self) -> bool:
        return len(self.parents) >= MAX_DEPTH or self.links > MAX_LINKS

    def name_of(self, part: str) -> str:
        return f"{self.name}/{part}" if self.name else part

    def file_of(self, part: str) -> str:
        return f"{self.file}/{part}" if self.file else part

    def below(self, part: str) -> _Place:
        return _Place(
            self.name_of(part),
            self.file_of(part),
            os.path.join(self.real, part),  # noqa: PTH118 - a Path for each file takes longer than its stat
            (*self.parents, self.real),
            self.links,
        )


class Scanner:
    """Looks at a root's directory. Used by one thread at a time.

    Parameters
    ----------
    root : str
        Name of the root.
    directory : str
        Absolute path of its directory.

    Attributes
    ----------
    real : str
        The same free of links, as it was when it was last looked at.
    """

    def __init__(self, root: str, directory: str) -> None:
        self.root = root
        self.directory = directory
        self.real = ""
        self._links: dict[str, str] = {}
        self._skipped: set[tuple[str, str]] = set()
        self._skipped_now: set[tuple[str, str]] = set()

    def scan(self) -> Scan:
        """Return all that can be published.

        Raises
        ------
        OSError
            If the directory itself cannot be listed.
        """
        self._begin()
        self._links.clear()
        found = Scan()
        self._directory(_Place("", "", self.real, (), 0), found)
        self._skipped = self._skipped_now
        return found

    def look(self, names: Iterable[str]) -> Scan:
        """Return what can be published at or below some names.

        Raises
        ------
        OSError
            If the root's directory is not there.
        """
        self._begin()
        found = Scan()
        for name in names:
            place = self._place(name)
            if place is not None and self._is_valid(name):
                try:
                    status = os.lstat(place.real)
                except OSError:
                    continue
                self._one(place, status, found)
        self._skipped |= self._skipped_now
        return found

    def _place(self, name: str) -> _Place | None:
        """Return where a name leads, but for its last part; None if that is not published."""
        place = _Place("", "", self.real, (), 0)
        for part in name.split("/"):
            real = os.path.realpath(place.real)
            file = self._below(real)
            if not part or is_hidden(part) or file is None or (file and any(map(is_hidden, file.split("/")))):
                return None
            links = place.links + (real != place.real)
            place = _Place(place.name, file, real, place.parents, links).below(part)
        return place

    def names_of(self, paths: Iterable[str]) -> set[str]:
        """Return the names that absolute paths (free of links) have below the root, those by links too."""
        names = set()
        for path in paths:
            file = self._below(path)
            if not file or any(map(is_hidden, file.split("/"))):
                continue
            names.add(file)
            for link, target in self._links.items():
                if file == target or target.startswith(f"{file}/"):
                    names.add(link)
                elif not target or file.startswith(f"{target}/"):
                    names.add(f"{link}/{file[len(target) :].lstrip('/')}")
        return names

    def _begin(self) -> None:
        self.real = os.path.realpath(self.directory, strict=True)
        self._skipped_now = set()

    def _below(self, real: str) -> str | None:
        """Return a real path relative to the directory; None if it is not below it."""
        if real == self.real:
            return ""
        prefix = self.real.rstrip(os.sep) + os.sep
        if not real.startswith(prefix):
            return None
        below = real[len(prefix) :]
        return below if os.sep == "/" else below.replace(os.sep, "/")

    def _directory(self, place: _Place, found: Scan) -> None:
        """List a directory and those below it."""
        if place.is_too_deep:
            self._skip(place.name, "too many directories or links deep")
            return
        found.directories.add(place.real)
        directories = []
        try:
            with os.scandir(place.real) as entries:
                for entry in entries:
                    name = place.name_of(entry.name)
                    if is_hidden(entry.name):
                        self._skip(name, "hidden or temporary")
                    elif self._is_valid(name):
                        if entry.is_dir(follow_symlinks=False):
                            directories.append(place.below(entry.name))
                        else:
                            self._entry(place, name, entry, found)
        except OSError as error:
            if not place.name:
                raise
            if isinstance(error, PermissionError):
                self._skip(place.name, "not permitted to list")
            elif not isinstance(error, FileNotFoundError | NotADirectoryError):
                log.warning("directory unreadable", root=self.root, name=place.name, reason=error.strerror)
                found.unreadable.add(place.name)
        for below in directories:
            self._directory(below, found)

    def _entry(self, place: _Place, name: str, entry: os.DirEntry[str], found: Scan) -> None:
        try:
            # Windows' directories do not say the inode
            status = os.lstat(entry.path) if os.name == "nt" else entry.stat(follow_symlinks=False)
        except OSError:
            return  # gone since it was listed
        if stat.S_ISREG(status.st_mode):  # nearly all there are
            found.files[name] = Found(place.file_of(entry.name), stat_key(status))
        else:
            self._one(place.below(entry.name), status, found)

    def _one(self, place: _Place, status: os.stat_result, found: Scan) -> None:
        if stat.S_ISREG(status.st_mode):
            found.files[place.name] = Found(place.file, stat_key(status))
        elif stat.S_ISDIR(status.st_mode):
            self._directory(place, found)
        elif stat.S_ISLNK(status.st_mode):
            self._link(place, found)
        else:
            self._skip(place.name, "neither file nor directory")

    def _link(self, place: _Place, found: Scan) -> None:
        name = place.name
        try:
            real = os.path.realpath(place.real, strict=True)
            status = os.lstat(real)
        except OSError:
            self._skip(name, "a link that leads nowhere")
            return
        file = self._below(real)
        is_directory = stat.S_ISDIR(status.st_mode)
        if file is None:
            self._skip(name, "a link that leaves the root")
        elif file and any(map(is_hidden, file.split("/"))):
            self._skip(name, "a link to what is hidden or temporary")
        elif is_directory and any(_is_at_or_below(parent, real) for parent in place.parents):
            self._skip(name, "a link to one of its own parents")
        elif is_directory or stat.S_ISREG(status.st_mode):
            self._links[name] = file
            self._one(_Place(name, file, real, place.parents, place.links + 1), status, found)
        else:
            self._skip(name, "a link to neither file nor directory")

    def _is_valid(self, name: str) -> bool:
        if (
            name.isascii()
            and name.isprintable()
            and "\\" not in name
            and len(name) + len(self.root) < MAX_PATH_BYTES
        ):
            return True  # nearly all names; the parser is ten times slower
        try:
            parse_path(f"{self.root}/{name}")
        except InvalidPath as error:
            self._skip(name, str(error))
            return False
        return True

    def _skip(self, name: str, reason: str) -> None:
        """Say once that something is not published."""
        what = (name, reason)
        self._skipped_now.add(what)
        if what not in self._skipped:
            level = log.debug if reason == "hidden or temporary" else log.info
            level("not published", root=self.root, name=ascii(name)[1:-1], reason=reason)


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)
