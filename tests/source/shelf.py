"""Originals whose versions are taken when a test says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from caterva2.errors import NotFound, Unavailable
from caterva2.frame.inspect import inspect
from caterva2.model.extents import digest
from caterva2.model.path import DatasetPath, kind_of
from caterva2.source.files import LocalFile
from caterva2.source.original import LocalVersion


class Shelf:
    """Originals whose versions are taken when told to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.versions: dict[DatasetPath, LocalVersion] = {}
        self.heads: dict[tuple[DatasetPath, str], bytes] = {}
        self.kept: dict[tuple[DatasetPath, str, int], bytes] = {}
        self.suspects: list[DatasetPath] = []
        self.reachable = True

    def publish(self, name: str) -> DatasetPath:
        path = DatasetPath("foo", name)
        with LocalFile(str(self.directory), name) as file:
            key = file.key()
            head = inspect(file.read, path=path, kind=kind_of(name), size=key.size, mtime_ns=key.mtime_ns)
        etag = digest(repr((name, key)).encode()).hex()
        self.versions[path] = LocalVersion(etag, 1, str(self.directory), name, key)
        self.heads[path, etag] = replace(head, etag=etag, generation=1).encode()
        return path

    def version(self, path: DatasetPath) -> LocalVersion:
        try:
            return self.versions[path]
        except KeyError:
            raise NotFound(str(path)) from None

    def check(self, path: DatasetPath) -> None:
        if not self.reachable:
            raise Unavailable("unplugged")

    def suspect(self, path: DatasetPath) -> None:
        self.suspects.append(path)

    def load_head(self, path: DatasetPath, etag: str) -> bytes | None:
        return self.heads.get((path, etag))

    def save_head(self, path: DatasetPath, etag: str, data: bytes) -> None:
        self.heads[path, etag] = data

    def load_page(self, path: DatasetPath, etag: str, number: int) -> bytes | None:
        return self.kept.get((path, etag, number))

    def save_page(self, path: DatasetPath, etag: str, number: int, data: bytes) -> None:
        self.kept[path, etag, number] = data
