"""Datasets at a version, read with ``await``: as `caterva2.client.dataset` and `caterva2.client.array`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from caterva2.client import npy, protocol
from caterva2.client.array import PARALLEL, PART_BYTES, POINT_BYTES, Reading, read_dtype
from caterva2.client.async_points import AsyncReads, points_of
from caterva2.client.async_transport import AsyncBody, AsyncTransport
from caterva2.client.async_versions import read_version
from caterva2.client.blocks import BLOCKS, read_blocks
from caterva2.client.dataset import check_items, check_range, one_axis, span_of
from caterva2.client.decoding import Pipe
from caterva2.client.described import (
    Described,
    DescribedArray,
    DescribedFile,
    DescribedFrame,
    nitems_of,
)
from caterva2.client.keys import Fancy, selects_points
from caterva2.client.protocol import Request
from caterva2.errors import InvalidSelection, TooLarge, Unsupported
from caterva2.model.parts import Part
from caterva2.model.selection import Axis, Selection, select

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["AsyncArray", "AsyncDataset", "AsyncField", "AsyncFile", "AsyncFrame"]

T = TypeVar("T")


class AsyncDataset(Described):
    """A dataset at the version that was current when it was opened; see `caterva2.client.dataset.Dataset`."""

    def __init__(self, transport: AsyncTransport, info: Mapping[str, Any]) -> None:
        super().__init__(info)
        self._transport = transport

    @property
    def url(self) -> str:
        """URL of its stored bytes."""
        return protocol.dataset_url(self._transport.url, self.path)

    async def refresh(self) -> bool:
        """Go to the version that is current now; its metadata is read again.

        Returns
        -------
        bool
            Whether it is another one than before.

        Raises
        ------
        NotFound, Unavailable
        Caterva2Error
            If it is of another kind now: open it anew. Nothing is changed then.
        """
        info = protocol.read_info(await self._transport.call(protocol.ask_info(self.path)))
        return self._goes_to(info)

    async def _ask(
        self,
        request: Request,
        info: Mapping[str, Any],
        read: Callable[[AsyncBody], Awaitable[T]],
        nbytes: int = 0,
    ) -> T:
        return await read_version(self._transport, request, self.path, info["etag"], read, nbytes=nbytes)


class AsyncArray(DescribedArray, AsyncDataset):
    """An n-dimensional array at a version: ``await array[0, 10:20]`` reads that part.

    What selects, and what is raised, is as for `caterva2.Array`. A read that is cancelled closes its
    connections.
    """

    def __repr__(self) -> str:
        return f"<AsyncArray {self.path}: {self.shape} {self.info['dtype']}>"

    def __getitem__(self, key: Any) -> Any:  # Any: what numpy takes, and what awaits an array or a scalar
        """Read a part, as `numpy.ndarray` gives it, when it is awaited.

        A name gives an `AsyncField` of structured elements, unread.

        Raises
        ------
        InvalidSelection
            If the key selects nothing of this array; at once, not when it is awaited.
        Changed
            If another version was published meanwhile.
        NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        return AsyncField(self, key) if isinstance(key, str) else self._get(key, self.info)

    async def read(self, selection: Selection) -> npt.NDArray[Any]:
        """Read a selection of this array's shape; see `caterva2.Array.read`."""
        return await self._read(selection, self.info)

    def _get(self, key: Any, info: Mapping[str, Any], field: str | None = None) -> Awaitable[Any]:
        parts = key if isinstance(key, tuple) else (key,)
        if selects_points(parts):
            return points_of(self._reads(info, field), parts)
        return self._part(select(key, tuple(info["shape"])), info, field, as_array=Ellipsis in parts)

    async def _part(
        self, selection: Selection, info: Mapping[str, Any], field: str | None, *, as_array: bool
    ) -> Any:  # Any: an array or a scalar
        array = await self._read(selection, info, field)
        return array if array.ndim or as_array else array[()]

    def _reads(self, info: Mapping[str, Any], field: str | None) -> AsyncReads:
        """Return what reads boxes and points of a version."""

        async def points(key: Fancy) -> npt.NDArray[Any]:
            request = protocol.ask_points(self.path, key.indices(), info["etag"], field)
            nbytes = POINT_BYTES * max(part.size for part in key.lists.values())
            return await self._ask(request, info, self._points, nbytes)

        shape, chunks = tuple(info["shape"]), tuple(info["chunks"])
        return AsyncReads(
            shape, chunks, read_dtype(info, field), lambda box: self._read(box, info, field), points
        )

    async def _points(self, body: AsyncBody) -> npt.NDArray[Any]:
        return await self._transport.decoding.decode(body.pieces(), npy.read_array)

    async def _read(
        self, selection: Selection, info: Mapping[str, Any], field: str | None = None
    ) -> npt.NDArray[Any]:
        import numpy as np

        target = np.empty(selection.counts, read_dtype(info, field))
        wanted = self._transport.decoding.decoders.wanted(target.nbytes)
        reading = Reading(info, target, wanted and not target.dtype.hasobject and field is None, field)
        try:
            await self._read_parts(selection, reading, PART_BYTES)
        except TooLarge as error:  # the service makes smaller answers than ours
            if not target.itemsize <= error.limit_bytes < PART_BYTES:
                raise
            await self._read_parts(selection, reading, error.limit_bytes)
        return reading.result(selection)

    async def _read_parts(self, selection: Selection, reading: Reading, part_bytes: int) -> None:
        parts = reading.cut(selection, part_bytes)
        alone = len(parts) > 1
        await together(partial(self._read_part, part, reading, alone=alone) for part in parts)

    async def _read_part(self, part: Part, reading: Reading, *, alone: bool) -> None:
        info, selection = reading.info, part.selection
        target, decoding = reading.part(part), self._transport.decoding

        def blocks(pipe: Pipe) -> None:
            read_blocks(pipe, reading.layout, selection, target, decoding.decoders, alone=alone)

        async def read(body: AsyncBody) -> None:
            if body.headers.get("Content-Type") == BLOCKS:
                await decoding.decode(body.pieces(), blocks)
            else:
                await decoding.decode(body.pieces(), lambda pipe: npy.read_into(pipe, target))

        async def ask(accept: str) -> None:
            request = protocol.ask_selection(self.path, selection, info["etag"], accept, reading.field)
            await self._ask(request, info, read, target.nbytes)

        try:
            await ask(reading.accept)
        except Unsupported:
            if not reading.blocks:
                raise
            await ask(protocol.NPY)


class AsyncField:
    """A field of a structured array: ``await array["a"][10:20]`` reads that part of it alone.

    Attributes
    ----------
    name : str
    array : AsyncArray
        What it is a field of; reads are of the version that this is at.

    Raises
    ------
    InvalidSelection
        If there is no field of that name.
    """

    def __init__(self, array: AsyncArray, name: str) -> None:
        if name not in (array.dtype.names or ()):
            raise InvalidSelection(f"{array.path!r} has no field {name!r}")
        self.array, self.name = array, name

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements."""
        return read_dtype(self.array.info, self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each dimension."""
        return self.array.shape

    def __getitem__(self, key: Any) -> Awaitable[Any]:  # Any: what numpy takes, and an array or a scalar
        """Read a part of it when it is awaited, as an `AsyncArray` does.

        Raises
        ------
        Unsupported
            If its elements are arrays themselves: read those of the array, and select of them.
        """
        if self.dtype.subdtype is not None:
            raise Unsupported(f"field {self.name!r} has arrays as elements: read the array, and select of it")
        return self.array._get(key, self.array.info, self.name)

    def __repr__(self) -> str:
        return f"<AsyncField {self.name} of {self.array.path}: {self.shape} {self.dtype}>"


class AsyncFrame(DescribedFrame, AsyncDataset):
    """A plain Blosc2 super-chunk: items of some bytes each.

    ``await frame[3]`` is an item, ``await frame[10:20]`` the bytes of ten of them.
    """

    def __repr__(self) -> str:
        return f"<AsyncFrame {self.path}: {self.nitems:,} items of {self.typesize} bytes>"

    def __getitem__(self, key: int | slice) -> Awaitable[bytes]:
        return self._items(one_axis(key, self.nitems, "frame"), self.info)

    async def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return items as bytes; see `caterva2.client.Frame.read`."""
        info = self.info
        return await self._items(one_axis(slice(start, stop), nitems_of(info), "frame"), info)

    async def _items(self, axis: Axis, info: Mapping[str, Any]) -> bytes:
        try:
            return await self._read(axis, info, PART_BYTES)
        except TooLarge as error:  # the service makes smaller answers than ours
            if not info["typesize"] <= error.limit_bytes < PART_BYTES:
                raise
            return await self._read(axis, info, error.limit_bytes)

    async def _read(self, axis: Axis, info: Mapping[str, Any], part_bytes: int) -> bytes:
        typesize: int = info["typesize"]
        data = bytearray(axis.count * typesize)
        view = memoryview(data)

        async def read_items(first: int, last: int) -> None:
            start, stop = (first - axis.start) * typesize, (last - axis.start) * typesize
            request = protocol.ask_items(self.path, first, last, info["etag"])
            await self._ask(request, info, partial(_items_into, target=view[start:stop]), stop - start)

        step = max(1, part_bytes // typesize)
        await together(
            partial(read_items, first, min(first + step, axis.stop))
            for first in range(axis.start, axis.stop, step)
        )
        return bytes(data)


class AsyncFile(DescribedFile, AsyncDataset):
    """Any other file: its bytes.

    ``await file[10:20]`` is ten of them, ``await file[3]`` one.
    """

    def __repr__(self) -> str:
        why = f", {self.error}" if self.error else ""
        return f"<AsyncFile {self.path}: {self.size:,} bytes{why}>"

    def __getitem__(self, key: int | slice) -> Awaitable[bytes]:
        info = self.info
        axis = one_axis(key, info["size"], "file")
        return self._read(axis.start, axis.stop, info)

    async def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return bytes of the file; see `caterva2.client.File.read`."""
        info = self.info
        return await self._read(*span_of(offset, size, info["size"]), info)

    async def _read(self, start: int, stop: int, info: Mapping[str, Any]) -> bytes:
        if start == stop:
            return b""
        data = bytearray(stop - start)
        view = memoryview(data)

        async def read_range(first: int, last: int) -> None:
            request = protocol.ask_bytes(self.path, first, last, info["etag"])
            target = view[first - start : last - start]
            await self._ask(request, info, partial(_range_into, target=target), last - first)

        await together(
            partial(read_range, first, min(first + PART_BYTES, stop))
            for first in range(start, stop, PART_BYTES)
        )
        return bytes(data)


async def together(work: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do some work, `PARALLEL` pieces of it at a time; with the first that fails all others are cancelled."""
    pieces = list(work)
    if len(pieces) == 1:
        await pieces[0]()
        return
    left = iter(pieces)

    async def some() -> None:
        for one in left:
            await one()

    tasks = [asyncio.ensure_future(some()) for _ in range(PARALLEL)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _items_into(body: AsyncBody, target: memoryview) -> None:
    check_items(body)
    await body.read_into(target)


async def _range_into(body: AsyncBody, target: memoryview) -> None:
    check_range(body)
    await body.read_into(target)
