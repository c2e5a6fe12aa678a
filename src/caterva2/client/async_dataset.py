"""Datasets at a version, read with ``await``: as `caterva2.client.dataset` and `caterva2.client.array`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from caterva2.client import npy, protocol
from caterva2.client.array import PARALLEL, PART_BYTES, Reading, indices_of, selects_points
from caterva2.client.async_transport import AsyncBody, AsyncTransport
from caterva2.client.async_versions import read_version
from caterva2.client.blocks import BLOCKS, read_blocks
from caterva2.client.dataset import check_items, check_range, one_axis, span_of
from caterva2.client.described import (
    Described,
    DescribedArray,
    DescribedFile,
    DescribedFrame,
    dtype_of,
    nitems_of,
)
from caterva2.client.protocol import Request
from caterva2.errors import Caterva2Error, TooLarge, Unsupported
from caterva2.model.parts import Part
from caterva2.model.selection import Axis, Selection, select

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["AsyncArray", "AsyncDataset", "AsyncFile", "AsyncFrame"]

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
        if info["kind"] != self.kind:
            raise Caterva2Error(f"{self.path!r} was of kind {self.kind} and is of kind {info['kind']} now")
        before, self.info = self.info, info
        return bool(info["etag"] != before["etag"])

    async def _ask(
        self, request: Request, info: Mapping[str, Any], read: Callable[[AsyncBody], Awaitable[T]]
    ) -> T:
        return await read_version(self._transport, request, self.path, info["etag"], read)


class AsyncArray(DescribedArray, AsyncDataset):
    """An n-dimensional array at a version: ``await array[0, 10:20]`` reads that part.

    What selects, and what is raised, is as for `caterva2.Array`. A read that is cancelled closes its
    connections.
    """

    def __repr__(self) -> str:
        return f"<AsyncArray {self.path}: {self.shape} {self.info['dtype']}>"

    def __getitem__(self, key: Any) -> Awaitable[Any]:  # Any: what numpy takes, and a numpy array or scalar
        """Read a part, as `numpy.ndarray` gives it, when it is awaited.

        Raises
        ------
        InvalidSelection
            If the key selects nothing of this array; at once, not when it is awaited.
        Changed
            If another version was published meanwhile.
        NotFound, Unavailable, TooLarge, Unsupported, IntegrityError
        """
        info = self.info
        parts = key if isinstance(key, tuple) else (key,)
        if selects_points(parts):
            request = protocol.ask_points(self.path, indices_of(parts, info["shape"]), info["etag"])
            return self._ask(request, info, self._points)
        return self._part(select(key, tuple(info["shape"])), info, as_array=Ellipsis in parts)

    async def read(self, selection: Selection) -> npt.NDArray[Any]:
        """Read a selection of this array's shape; see `caterva2.Array.read`."""
        return await self._read(selection, self.info)

    async def _part(self, selection: Selection, info: Mapping[str, Any], *, as_array: bool) -> Any:
        array = await self._read(selection, info)
        return array if array.ndim or as_array else array[()]

    async def _points(self, body: AsyncBody) -> npt.NDArray[Any]:
        return await self._transport.decoding.decode(body.pieces(), npy.read_array)

    async def _read(self, selection: Selection, info: Mapping[str, Any]) -> npt.NDArray[Any]:
        import numpy as np

        target = np.empty(selection.counts, dtype_of(info))
        wanted = self._transport.decoding.decoders.wanted(target.nbytes)
        reading = Reading(info, target, wanted and not target.dtype.hasobject)
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

        async def read(body: AsyncBody) -> None:
            if body.headers.get("Content-Type") == BLOCKS:
                await decoding.decode(
                    body.pieces(),
                    lambda pipe: read_blocks(
                        pipe, reading.layout, selection, target, decoding.decoders, alone=alone
                    ),
                )
            else:
                await decoding.decode(body.pieces(), lambda pipe: npy.read_into(pipe, target))

        try:
            request = protocol.ask_selection(self.path, selection, info["etag"], reading.accept)
            await self._ask(request, info, read)
        except Unsupported:
            if not reading.blocks:
                raise
            await self._ask(protocol.ask_selection(self.path, selection, info["etag"]), info, read)


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
            await self._ask(request, info, partial(_items_into, target=view[start:stop]))

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
            await self._ask(request, info, partial(_range_into, target=view[first - start : last - start]))

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
