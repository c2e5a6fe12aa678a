"""The client for programs on an event loop: as `caterva2.client.client`, with ``await``.

>>> from caterva2 import AsyncClient
>>> async with AsyncClient("http://127.0.0.1:8002") as client:  # doctest: +SKIP
...     array = await client.open("foo/dir1/ds-2d.b2nd")
...     await array[0, 10:20]
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from caterva2 import config
from caterva2.client import protocol
from caterva2.client.async_dataset import AsyncArray, AsyncDataset, AsyncFile, AsyncFrame
from caterva2.client.async_download import download
from caterva2.client.async_events import events
from caterva2.client.async_transport import AsyncBody, AsyncTransport
from caterva2.client.async_versions import newest_of, read_version
from caterva2.client.dataset import check_range
from caterva2.client.records import Download, Event, RootInfo, Row
from caterva2.errors import NotFound
from caterva2.model.path import check_root, parse_path
from caterva2.model.pattern import check_pattern

__all__ = ["AsyncArray", "AsyncClient", "AsyncDataset", "AsyncFile", "AsyncFrame"]

_KINDS: dict[str, type[AsyncArray | AsyncFrame | AsyncFile]] = {
    "array": AsyncArray,
    "frame": AsyncFrame,
    "file": AsyncFile,
}


class AsyncClient:
    """A connection to a subscriber (or to a publisher: the API is the same), on one event loop.

    An asynchronous context manager. Nothing is sent before it is used. Whatever is awaited can be cancelled:
    connections that are in use for it are closed at once, and no thread works for it any more.

    Parameters
    ----------
    url, token, token_file, timeout_s
        As for `caterva2.connect`.

    Raises
    ------
    ConfigError
        If a setting is malformed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        settings = config.load(
            config.ClientSettings, subscriber=url, token=token, token_file=token_file, timeout_s=timeout_s
        )
        self._transport = AsyncTransport(settings.subscriber, settings.token, settings.timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections; what is under way is `Unavailable`, and events end."""
        await self._transport.close()

    def close_soon(self) -> None:
        """Close its connections from any thread: for finalizers, which cannot wait."""
        self._transport.close_soon()

    @property
    def subscriber(self) -> str:
        """URL of the subscriber."""
        return self._transport.url

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._transport.url}>"

    async def open(self, path: str) -> Any:  # Any: an AsyncArray, an AsyncFrame or an AsyncFile
        """Open a dataset, at the version that is current now: one request.

        Raises
        ------
        NotFound, InvalidPath, Unavailable
        """
        return self.opened(await self.info(path))

    def opened(self, info: Mapping[str, Any]) -> Any:  # Any: as above
        """Return a dataset at the version of which this is the metadata. Nothing is asked."""
        return _KINDS[info["kind"]](self._transport, info)

    async def roots(self) -> builtins.list[RootInfo]:
        """Return the roots, sorted by name.

        Raises
        ------
        Unavailable, Unauthorized
        """
        return protocol.read_roots(await self._transport.call(protocol.ask_roots()))

    async def list(self, path: str | None = None) -> builtins.list[Row]:
        """Return the datasets of a root, of a directory in it, or of all roots, sorted by path.

        Raises
        ------
        NotFound
            If there is no such root, or nothing at or below the path.
        InvalidPath, Unavailable, Unauthorized
        """
        if path is None:
            return [row for root in await self.roots() for row in await self.list(root.name)]
        parsed = parse_path(path.rstrip("/"), allow_root=True)
        rows = [row async for row in self.rows(parsed.root, f"{parsed.name}/" if parsed.name else "")]
        if not rows and parsed.name:
            return [await self.row(str(parsed))]
        return rows

    async def rows(self, root: str, prefix: str = "") -> AsyncIterator[Row]:
        """Yield the datasets of a root whose names begin with a prefix, in the order of their names.

        Only as many are asked for, in pages of 1000, as there are of these.

        Raises
        ------
        NotFound, InvalidPath, Unavailable, Unauthorized
        """
        after: str | None = protocol.before(prefix) if prefix else ""
        begin = f"{check_root(root)}/{prefix}"
        while after is not None:
            rows, after = await self.page(root, after)
            for row in rows:
                if not row.path.startswith(begin):
                    return
                yield row

    async def page(
        self, root: str, after: str = "", limit: int = protocol.PAGE_ROWS
    ) -> tuple[builtins.list[Row], str | None]:
        """Return the datasets of a root whose names come next behind some text, and where to go on.

        Parameters
        ----------
        root, after : str
        limit : int, optional
            Most rows.

        Raises
        ------
        NotFound, InvalidPath, Unavailable, Unauthorized
        """
        return protocol.read_rows(await self._transport.call(protocol.ask_rows(root, after, limit)))

    async def info(self, path: str) -> dict[str, Any]:
        """Return all metadata of a dataset.

        Raises
        ------
        NotFound, InvalidPath, Unavailable, Unauthorized
        """
        return protocol.read_info(await self._transport.call(protocol.ask_info(path)))

    def url(self, path: str, etag: str | None = None) -> str:
        """Return the URL of the stored bytes of a dataset; see `caterva2.Client.url`."""
        return protocol.dataset_url(self._transport.url, path, etag)

    async def read(self, path: str, key: Any = ...) -> Any:  # Any: as the datasets take and give
        """Open a dataset and read a part of it, in whatever version it is now; see `caterva2.Client.read`.

        Raises
        ------
        NotFound, InvalidPath, InvalidSelection, Unavailable, TooLarge, Unsupported, IntegrityError
        Changed
            If it was replaced every time it was tried.
        """
        parse_path(path)

        async def attempt() -> Any:  # Any: as above
            dataset = await self.open(path)
            return await dataset[key]

        return await newest_of(attempt)

    async def stored(
        self, path: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> bytes:
        """Return stored bytes of a dataset of any kind, which need not be opened for that.

        Parameters
        ----------
        path : str
        start, stop : int
            Bytes ``start <= offset < stop``, by default to the end; with a negative start, the last ones.
        etag : str, optional
            Of the version; by default it is what is current.

        Raises
        ------
        InvalidRange
            If the file ends before `start`, or has no bytes.
        NotFound, Changed, InvalidPath, Unavailable, Unauthorized
        """
        request = protocol.ask_stored(path, start, stop, etag)

        async def read(body: AsyncBody) -> bytes:
            if "Range" in request.headers:
                check_range(body)
            return await body.read(sys.maxsize)

        return await read_version(self._transport, request, path, etag, read)

    async def download(
        self,
        path: str,
        directory: str | os.PathLike[str] = ".",
        progress: Callable[[int, int], None] | None = None,
        *,
        name: str | None = None,
    ) -> Download:
        """Save the whole file of a dataset; see `caterva2.Client.download`, which goes on with it as well.

        Parameters
        ----------
        path, directory, progress
            As there.
        name : str, optional
            Of the file; by default that of the dataset.

        Raises
        ------
        NotFound, InvalidPath, Unavailable, Unauthorized
        Changed
            If it was replaced faster than it could be downloaded, several times.
        OSError
            If it cannot be written: no space, no permission, another download of it is under way.
        """
        file = Path(directory) / (name or parse_path(path).name.rpartition("/")[2])
        return await download(self._transport, path, file, progress)

    def events(
        self,
        pattern: str = "*",
        *,
        since: str | None = None,
        on_loss: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[Event]:
        """Iterate over the differences that the subscriber sees from now on; see `caterva2.Client.events`.

        It is connected with the first step, and when the connection is lost afterwards, it is made again.
        Close it with ``aclose()``, or by cancelling who iterates.

        Raises
        ------
        InvalidPath
        Unavailable, Unauthorized
            With the first step.
        """
        return events(self._transport, check_pattern(pattern), since, on_loss)

    async def row(self, path: str) -> Row:
        """Return what listings say of a dataset; its metadata is in `info`, which takes longer to be had.

        Raises
        ------
        NotFound, InvalidPath, Unavailable, Unauthorized
        """
        parsed = parse_path(path)
        rows, _ = await self.page(parsed.root, protocol.before(parsed.name), 1)
        if not rows or rows[0].path != path:
            raise NotFound(path)
        return rows[0]
