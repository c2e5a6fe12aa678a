"""Files that are open for reading, each at one version."""

# ruff: noqa: PLR0917 - the arguments are those that fsspec gives

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractBufferedFile

from caterva2.adapters.fsspec_pages import PAGE_BYTES, PageCache
from caterva2.errors import Changed

if TYPE_CHECKING:
    from caterva2.adapters.fsspec import Caterva2FileSystem

__all__ = ["Caterva2File", "ChangedFile"]


class ChangedFile(Changed, OSError):
    """The version of a file that was opened is no longer what is published: open it anew."""

    def __init__(self, path: str, wanted_etag: str | None, current_etag: str | None) -> None:
        super().__init__(path, wanted_etag, current_etag)
        self.errno = errno.ESTALE

    def __str__(self) -> str:
        # OSError.__str__ would print its errno form
        return f"{self.args[0]}: open it anew"


class Caterva2File(AbstractBufferedFile):  # type: ignore[misc]  # fsspec ships no types
    """An open file: of the version that was current when it was opened.

    Attributes
    ----------
    etag : str
        Name of the version.

    Raises
    ------
    NotFound
    IsADirectoryError
    ChangedFile
        If another version than the one given is current.
    """

    def __init__(
        self,
        fs: Caterva2FileSystem,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_type: str = PageCache.name,
        etag: str | None = None,
        **kwargs: Any,  # Any: as fsspec takes
    ) -> None:
        info = fs.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        self.etag: str = info["etag"]
        if etag not in (None, self.etag):
            raise ChangedFile(path, etag, self.etag)
        kwargs["size"] = info["size"]
        super().__init__(fs, path, mode, block_size or PAGE_BYTES, cache_type=cache_type, **kwargs)
        self.details = info

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end, etag=self.etag)
        return data

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return _reopened, (self.fs, self.path, self.blocksize, self.cache.name, self.etag, self.loc)


def _reopened(
    fs: Caterva2FileSystem, path: str, block_size: int, cache_type: str, etag: str, position: int
) -> Caterva2File:
    file = Caterva2File(fs, path, block_size=block_size, cache_type=cache_type, etag=etag)
    file.seek(position)
    return file
