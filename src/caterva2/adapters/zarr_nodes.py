"""What is below a location, as the nodes of a Zarr hierarchy: arrays at one version each, and groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from typing import Any

from caterva2.adapters.fsspec_listing import children, find_directory
from caterva2.adapters.zarr_keys import JSON, parents
from caterva2.adapters.zarr_metadata import is_storable
from caterva2.adapters.zarr_shards import Shards
from caterva2.client.asynchronous import AsyncArray, AsyncClient
from caterva2.client.location import Location
from caterva2.client.records import Row
from caterva2.errors import Changed, InvalidPath, NotFound
from caterva2.model.path import kind_of

__all__ = ["Nodes"]


class Nodes:
    """The nodes below a location, by their keys relative to it.

    Parameters
    ----------
    client : AsyncClient
    where : Location

    Attributes
    ----------
    arrays : dict of str to AsyncArray
        Those that were looked at, by path: they stay at that version.
    """

    def __init__(self, client: AsyncClient, where: Location) -> None:
        self._client = client
        self._where = where
        self.arrays: dict[str, AsyncArray] = {}

    def know(self, infos: Iterable[Mapping[str, Any]]) -> None:
        """Take over what another one knows of arrays: the metadata of each."""
        self.arrays |= {info["path"]: self._client.opened(info) for info in infos}

    def path(self, key: str) -> str:
        """Return the path that a key stands for."""
        return "/".join(filter(None, (self._where.path, key)))

    async def array(self, node: str) -> AsyncArray | None:
        """Return an array, always at the same version; None if there is none.

        Raises
        ------
        Changed
            If it is not at the version that the location names.
        Unavailable, Unauthorized
        """
        path = self.path(node)
        if path not in self.arrays and kind_of(path) == "array":
            with suppress(NotFound, InvalidPath):
                found = await self._client.open(path)
                if self._where.etag not in (None, found.etag):
                    raise Changed(path, self._where.etag, found.etag)
                if isinstance(found, AsyncArray):
                    self.arrays.setdefault(path, found)  # another task may have been faster
        return self.arrays.get(path)

    async def is_group(self, node: str) -> bool:
        """Return whether there is such a directory."""
        try:
            if path := self.path(node):
                await find_directory(self._client, path)
        except (NotFound, InvalidPath):
            return False
        return True

    async def children(self, node: str) -> AsyncIterator[str]:
        """Yield the names of what is in an array or a group: of files those that are arrays."""
        array = await self.array(node)
        if array is not None:  # it may be empty, and false then
            yield JSON
            if array.size:
                yield "c"
            return
        if not await self.is_group(node):
            return
        yield JSON
        if not self.path(node):
            for root in await self._client.roots():
                yield root.name
            return
        async for child in children(self._client, self.path(node)):
            if isinstance(child, str):
                yield child.rpartition("/")[2]
            elif child.kind == "array" and is_storable(child):
                yield child.path.rpartition("/")[2]

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with a prefix."""
        for node in ("", *parents(prefix)):
            if await self.array(node) is not None:
                for key in await self._keys_of(node):
                    if key.startswith(prefix):
                        yield key
                return
        seen: set[str] = set()
        async for row in self._rows(prefix):
            key = row.path.removeprefix(f"{self._where.path}/")
            for node in ("", *parents(key)):
                said = f"{node}/{JSON}".lstrip("/")
                if said not in seen and said.startswith(prefix):
                    yield said
                seen.add(said)
            if row.kind != "array":
                if key not in seen:
                    yield key
            elif is_storable(row):
                for one in await self._keys_of(key):
                    yield one

    async def _keys_of(self, node: str) -> list[str]:
        array = await self.array(node)
        if array is None:
            return []
        return [f"{node}/{key}".lstrip("/") for key in (JSON, *Shards(array).keys())]

    async def _rows(self, prefix: str) -> AsyncIterator[Row]:
        """Yield the datasets whose keys begin with a prefix."""
        below = f"{self._where.path}/" if self._where.path else ""
        root, slash, name = f"{below}{prefix}".partition("/")
        roots = [root] if slash else [one.name for one in await self._client.roots()]
        for one in roots:
            if one.startswith(root):
                with suppress(NotFound, InvalidPath):
                    async for row in self._client.rows(one, name):
                        yield row
