"""Files in roots for whatever opens files by fsspec: ``caterva2://host:port/root/dir/name``.

Read-only. An open file is of one version, and of a large one only the pages that are touched are moved.

>>> import fsspec
>>> with fsspec.open("caterva2://127.0.0.1:8002/foo/table.csv") as file:  # doctest: +SKIP
...     file.read(100)
"""

# ruff: noqa: ARG002, PLR0917 - the arguments are those that fsspec gives

from __future__ import annotations

import asyncio
import errno
import os
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from urllib.parse import quote, urlsplit

from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import stringify_path

from caterva2 import config
from caterva2.adapters.fsspec_file import Caterva2File, ChangedFile
from caterva2.adapters.fsspec_listing import Info, children, directory_info, file_info, find_directory
from caterva2.client.asynchronous import AsyncClient
from caterva2.client.location import parse_location
from caterva2.errors import Changed, InvalidPath, InvalidRange, NotFound

__all__ = ["Caterva2FileSystem"]


class _Configured:
    """What the configuration says of a subscriber: where that changes, file systems are others."""

    def __get__(self, instance: object, owner: type) -> config.ClientSettings:
        return config.load(config.ClientSettings)


class Caterva2FileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """All that a subscriber has, as files; roots are the directories at the top.

    Pickles by the URL of the subscriber, without the token: who unpickles it uses the one that is configured.

    Parameters
    ----------
    subscriber : str, optional
        URL; by default what is configured. URLs of files say it.
    token, token_file, timeout_s
        As for `caterva2.connect`. The token is not part of ``storage_options``.
    versions : mapping of str to str, optional
        Etags by path: reads of these are of that version. URLs with ``?version=ETAG`` say it.
    **kwargs
        As for `fsspec.asyn.AsyncFileSystem`.

    Raises
    ------
    ConfigError
        If a setting is malformed.
    """

    protocol: ClassVar[tuple[str, ...]] = ("caterva2", "caterva2s")
    root_marker = ""
    cachable = True
    _configured = _Configured()
    _extra_tokenize_attributes = ("_configured",)

    def __init__(
        self,
        subscriber: str | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        timeout_s: float | None = None,
        versions: Mapping[str, str] | None = None,
        **kwargs: Any,  # Any: as AsyncFileSystem takes
    ) -> None:
        super().__init__(**kwargs)
        self._client = AsyncClient(subscriber, token=token, token_file=token_file, timeout_s=timeout_s)
        self.subscriber = self._client.subscriber
        self._versions = dict(versions or {})
        weakref.finalize(self, self._client.close_soon)

    # -- which one it is -------------------------------------------------------------------------

    @property
    def storage_options(self) -> dict[str, Any]:  # Any: whatever was given
        """What makes another one like it; without the token."""
        return self._options

    @storage_options.setter
    def storage_options(self, given: Mapping[str, Any]) -> None:
        kept = {name: value for name, value in given.items() if name != "token"}
        self._options = {**kept, "subscriber": self.subscriber}

    @property
    def storage_args(self) -> tuple[()]:
        """Nothing: the only argument that can be given by its place is among the `storage_options`."""
        return ()

    @storage_args.setter
    def storage_args(self, given: tuple[Any, ...]) -> None:
        pass

    @property
    def fsid(self) -> str:
        """Its name."""
        return f"caterva2-{self.subscriber}"

    def __repr__(self) -> str:
        return f"<Caterva2FileSystem of {self.subscriber}>"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # Any: one or many
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        if text.startswith(tuple(f"{name}://" for name in cls.protocol)):
            return parse_location(text).path
        return text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        if "://" not in path:
            return {}
        where = parse_location(path)
        found: dict[str, Any] = {"subscriber": where.subscriber} if where.subscriber else {}
        return found | ({"versions": {where.path: where.etag}} if where.etag else {})

    def unstrip_protocol(self, name: str) -> str:
        """Return the URL of a path. Where the subscriber's has a path itself, that cannot say which one."""
        path, parts = quote(self._strip_protocol(name)), urlsplit(self.subscriber)
        if parts.path:
            return f"caterva2:///{path}"
        scheme = "caterva2s" if parts.scheme == "https" else "caterva2"
        port = "" if parts.port or scheme == "caterva2s" else ":80"
        return f"{scheme}://{parts.netloc}{port}/{path}"

    # -- what is there ---------------------------------------------------------------------------

    async def _info(self, path: str, **kwargs: Any) -> Info:
        path = self._strip_protocol(path)
        if not path:
            return directory_info("")
        with _no_such_file(path):
            try:
                return await self._file_info(path)
            except NotFound:
                return await find_directory(self._client, path)

    async def _file_info(self, path: str) -> Info:
        if "/" not in path:
            raise NotFound(path)
        row, wanted = await self._client.row(path), self._versions.get(path)
        if wanted not in (None, row.etag):
            raise ChangedFile(path, wanted, row.etag)
        return file_info(row)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        with _no_such_file(path):
            if not path:
                infos = [directory_info(root.name) for root in await self._client.roots()]
            else:
                infos = [
                    directory_info(child) if isinstance(child, str) else file_info(child)
                    async for child in children(self._client, path)
                ]
                if not infos and "/" in path:
                    infos = [await self._file_info(path)]
        return infos if detail else [info["name"] for info in infos]

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:  # Any: names, or what is said of each
        path = self._strip_protocol(path)
        if not path or withdirs or maxdepth is not None:
            return await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, **kwargs)
        root, _, name = path.partition("/")
        with _no_such_file(path), suppress(NotFound):
            rows = [row async for row in self._client.rows(root, f"{name}/" if name else "")]
            infos = [file_info(row) for row in rows] or [await self._file_info(path)]
            if kwargs.get("detail"):
                return {info["name"]: info for info in infos}
            return [info["name"] for info in infos]
        return {} if kwargs.get("detail") else []

    def ukey(self, path: str) -> str:
        """Return the etag of a file: another one is another version."""
        return str(self.info(path)["etag"])

    def modified(self, path: str) -> datetime:
        """Return when a file was last modified."""
        modified: datetime = self.info(path)["mtime"]
        return modified

    def created(self, path: str) -> datetime:
        """Return when a file was last modified: a version does not change after that."""
        return self.modified(path)

    # -- reading ---------------------------------------------------------------------------------

    async def _cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        etag: str | None = None,
        **kwargs: Any,
    ) -> bytes:
        path = self._strip_protocol(path)
        etag = etag or self._versions.get(path)
        first, last = start or 0, end
        if (first < 0 and last is not None) or (last is not None and last < 0):
            info = await self._file_info(path)
            first, last, _ = slice(start, end).indices(info["size"])
            etag = etag or info["etag"]
        if last is not None and last <= first:
            return b""
        with _no_such_file(path), suppress(InvalidRange):
            try:
                return await self._client.stored(path, first, last, etag=etag)
            except Changed as error:
                raise ChangedFile(path, error.wanted_etag, error.current_etag) from error
        return b""

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,  # Any: as fsspec takes
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> Any:
        """Return parts of files; those of the same file are of one version of it."""
        names = [self._strip_protocol(path) for path in paths]
        several = [name for name, count in Counter(names).items() if count > 1]
        infos = await asyncio.gather(*map(self._file_info, several), return_exceptions=True)
        etags = {info["name"]: info["etag"] for info in infos if not isinstance(info, BaseException)}
        begins, stops = (
            bound if isinstance(bound, Iterable) else [bound] * len(names) for bound in (starts, ends)
        )
        found = await asyncio.gather(
            *[
                self._cat_file(name, start, end, etags.get(name))
                for name, start, end in zip(names, begins, stops, strict=True)
            ],
            return_exceptions=True,
        )
        errors = [one for one in found if isinstance(one, BaseException)]
        if errors and on_error != "return":
            raise errors[0]
        return found

    async def _get_file(
        self, rpath: str, lpath: str, callback: Callback = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        """Save a file; one that was broken off is resumed."""
        rpath, file = self._strip_protocol(rpath), Path(lpath)
        if await self._isdir(rpath):
            file.mkdir(parents=True, exist_ok=True)
            return

        def progress(there: int, size: int) -> None:
            callback.set_size(size)
            callback.absolute_update(there)

        with _no_such_file(rpath):
            await self._client.download(rpath, file.parent, progress, name=file.name)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Caterva2File:
        if mode != "rb":
            refuse()
        return Caterva2File(self, path, **kwargs)

    # -- what is not done ------------------------------------------------------------------------

    async def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        refuse()

    _put_file = _pipe_file = _cp_file = _mv_file = _rm = _rm_file = _mkdir = _makedirs = _refuse

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> NoReturn:
        """Raise `OSError`: roots are read-only."""
        refuse()

    def rmdir(self, path: str) -> NoReturn:
        """Raise `OSError`: roots are read-only."""
        refuse()


def refuse() -> NoReturn:
    """Raise the error of who wants to write."""
    raise OSError(errno.EROFS, "roots are read-only: change files where they are published")


@contextmanager
def _no_such_file(path: str) -> Iterator[None]:
    """Inside, what cannot be a path is a file that is not there."""
    try:
        yield
    except InvalidPath as error:
        raise NotFound(path, str(error)) from error
