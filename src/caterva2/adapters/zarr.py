"""Roots and directories as Zarr groups, and the arrays in them as Zarr arrays: a read-only store for zarr 3.

>>> import zarr
>>> from caterva2.adapters.zarr import Caterva2Store
>>> store = Caterva2Store("caterva2://127.0.0.1:8002/foo")  # doctest: +SKIP
>>> zarr.open_array(store, path="dir1/ds-2d.b2nd", mode="r")[0, 10:20]  # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from caterva2.adapters.zarr_keys import Name, bounds, span
from caterva2.adapters.zarr_metadata import GROUP, array_json
from caterva2.adapters.zarr_nodes import Nodes
from caterva2.adapters.zarr_shards import Shards
from caterva2.client.asynchronous import AsyncClient
from caterva2.client.location import parse_location
from caterva2.errors import InvalidPath, InvalidRange, NotFound

__all__ = ["Caterva2Store"]


READ_ONLY = "roots are read-only: change files where they are published"


class Caterva2Store(Store):
    """All below a root, a directory, or nothing (then the roots are the groups at the top); or one array.

    Each directory is a group, each array (``x.b2nd``, by that name) an array in it, at the version that it
    had when this store first read its metadata: who wants a later one makes another store. `Changed` is
    raised where that version cannot be had any more. Zarr data of format 3 among the files is seen as it is.

    Arrays whose elements are of a type that Zarr does not have are not listed, and `Unsupported` if they are
    asked for.

    Pickles by URL, with what is known of the arrays, without the token.

    Parameters
    ----------
    url : str
        As for `caterva2.open`: ``caterva2://host:port/foo/dir``, ``foo/dir``, ...
    token, token_file, timeout_s
        As for `caterva2.connect`.
    read_only : bool
        Cannot be false.

    Raises
    ------
    ConfigError, InvalidPath
    """

    supports_writes = False
    supports_deletes = False
    supports_partial_writes = False
    supports_listing = True

    def __init__(
        self,
        url: str = "",
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        timeout_s: float | None = None,
        read_only: bool = True,
    ) -> None:
        if not read_only:
            raise ValueError(READ_ONLY)
        super().__init__(read_only=True)
        where = parse_location(url)
        self._options = {"token_file": token_file, "timeout_s": timeout_s}
        self._client = AsyncClient(where.subscriber, token=token, token_file=token_file, timeout_s=timeout_s)
        self._where = replace(where, subscriber=self._client.subscriber)
        self._nodes = Nodes(self._client, self._where)
        weakref.finalize(self, self._client.close_soon)

    # -- which one it is -------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """URL of what is at its top."""
        where = self._where
        path = f"/data/{quote(where.path)}" if where.path else ""
        version = f"?version={quote(where.etag, safe='')}" if where.etag else ""
        return f"{where.subscriber}{path}{version}"

    def __repr__(self) -> str:
        return f"<Caterva2Store of {self.url}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Caterva2Store) and self._where == other._where

    __hash__ = None  # type: ignore[assignment]  # as of the other stores

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return _restored, (self.url, self._options, [array.info for array in self._nodes.arrays.values()])

    def with_read_only(self, read_only: bool = False) -> Caterva2Store:
        """Return itself: it is read-only.

        Raises
        ------
        ValueError
            If it is not to be.
        """
        if not read_only:
            raise ValueError(READ_ONLY)
        return self

    def close(self) -> None:
        """Close its connections; it opens again when it is used."""
        super().close()
        self._client.close_soon()

    # -- reading ---------------------------------------------------------------------------------

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object, or a part of it; None if there is no such object.

        Raises
        ------
        Changed
            If it is of an array that is at another version now.
        Unsupported
            If Zarr does not have the type of its elements.
        Unavailable, Unauthorized, TooLarge, IntegrityError
        """
        await self._ensure_open()
        data = await self._get(key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def _get(self, key: str, part: ByteRequest | None) -> bytes | None:
        first, last = bounds(part)
        name = Name.parse(key)
        array = None if name is None else await self._nodes.array(name.node)
        if name is None or array is None:
            try:
                return await self._client.stored(self._nodes.path(key), first, last)
            except InvalidRange:
                return b""
            except (NotFound, InvalidPath):
                return GROUP[slice(*span(part, len(GROUP)))] if await self._is_group(name) else None
        if name.chunk is None:
            metadata = array_json(array)
            return metadata[slice(*span(part, len(metadata)))]
        shards = Shards(array)
        if not shards.layout.has_chunk(name.chunk):
            return None
        return await shards.read(name.chunk, *span(part, shards.nbytes))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects: each as `get` does."""
        return list(await asyncio.gather(*[self.get(key, prototype, part) for key, part in key_ranges]))

    async def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        return await self._size(key) is not None

    async def getsize(self, key: str) -> int:
        """Return the size of an object, in bytes.

        Raises
        ------
        NotFound
        """
        size = await self._size(key)
        if size is None:
            raise NotFound(self._nodes.path(key))
        return size

    async def _size(self, key: str) -> int | None:
        await self._ensure_open()
        name = Name.parse(key)
        array = None if name is None else await self._nodes.array(name.node)
        if name is not None and array is not None:
            if name.chunk is None:
                return len(array_json(array))
            shards = Shards(array)
            return shards.nbytes if shards.layout.has_chunk(name.chunk) else None
        try:
            return (await self._client.row(self._nodes.path(key))).size
        except (NotFound, InvalidPath):
            return len(GROUP) if await self._is_group(name) else None

    async def _is_group(self, name: Name | None) -> bool:
        """Return whether what a key names is said of a directory."""
        return name is not None and name.chunk is None and await self._nodes.is_group(name.node)

    # -- what is there ---------------------------------------------------------------------------

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys, those of each chunk of each array among them."""
        async for key in self._nodes.keys(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with a prefix."""
        async for key in self._nodes.keys(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of what is in a group or an array; of files those that are arrays."""
        async for name in self._nodes.children(prefix.strip("/")):
            yield name

    # -- what is not done ------------------------------------------------------------------------

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002  # as the base class has it
        """Raise `ValueError`: it is read-only."""
        self._check_writable()

    async def set_partial_values(self, key_start_values: object) -> None:  # noqa: ARG002  # of zarr 3.1.0
        """Raise `ValueError`: it is read-only."""
        self._check_writable()

    async def delete(self, key: str) -> None:  # noqa: ARG002  # as the base class has it
        """Raise `ValueError`: it is read-only."""
        self._check_writable()


def _restored(url: str, options: Mapping[str, Any], infos: Iterable[Mapping[str, Any]]) -> Caterva2Store:
    store = Caterva2Store(url, **options)
    store._nodes.know(infos)
    return store
