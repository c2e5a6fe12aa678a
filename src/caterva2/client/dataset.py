"""Datasets at a version: what all kinds share, and those that are not arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from caterva2.client import protocol
from caterva2.client.protocol import PART_BYTES
from caterva2.client.transport import Transport
from caterva2.errors import Caterva2Error, InvalidSelection, TooLarge, Unsupported
from caterva2.model.selection import Axis, select

__all__ = ["Dataset", "File", "Frame"]


class Dataset:
    """A dataset at the version that was current when it was opened.

    Every read is of that version: if another one has been published, it raises `Changed`, and `refresh` opens
    the new one. Can be used by several threads.

    Attributes
    ----------
    path : str
        ``root/dir/name``.
    kind : str
        ``array``, ``frame`` or ``file``.
    etag : str
        Name of the version.
    generation : int
        Order of the versions of this dataset.
    mtime : str
        Time of last modification, ISO 8601 in UTC.
    attrs : dict
        Attributes (variable-length metadata) that were stored with it.
    info : dict
        All metadata, as ``/api/info`` has it. Not to be changed.
    """

    def __init__(self, transport: Transport, info: Mapping[str, Any]) -> None:
        self._transport = transport
        self.info = info
        self.path: str = info["path"]
        self.kind: str = info["kind"]
        self.etag: str = info["etag"]
        self.generation: int = info["generation"]
        self.mtime: str = info["mtime"]
        self.attrs: dict[str, Any] = info.get("attrs") or {}

    @property
    def url(self) -> str:
        """URL of its stored bytes."""
        return protocol.dataset_url(self._transport.url, self.path)

    def refresh(self) -> Self:
        """Return this dataset at the version that is current now.

        Raises
        ------
        NotFound, Unavailable
        Caterva2Error
            If it is of another kind now.
        """
        info = protocol.read_info(self._transport.call(protocol.ask_info(self.path)))
        if info["kind"] != self.kind:
            raise Caterva2Error(f"{self.path!r} was of kind {self.kind} and is of kind {info['kind']} now")
        return type(self)(self._transport, info)


class Frame(Dataset):
    """A plain Blosc2 super-chunk: items of some bytes each.

    ``frame[3]`` is an item, ``frame[10:20]`` the bytes of ten of them.

    Attributes
    ----------
    typesize : int
        Size of an item, in bytes.
    nbytes, cbytes : int
        Size of the items, and of their compressed form, in bytes.
    """

    def __init__(self, transport: Transport, info: Mapping[str, Any]) -> None:
        super().__init__(transport, info)
        self.typesize: int = info["typesize"]
        self.nbytes: int = info["nbytes"]
        self.cbytes: int = info["cbytes"]

    @property
    def nitems(self) -> int:
        """How many items there are."""
        return self.nbytes // self.typesize

    def __len__(self) -> int:
        return self.nitems

    def __getitem__(self, key: int | slice) -> bytes:
        axis = _one_axis(key, self.nitems, "frame")
        return self.read(axis.start, axis.stop)

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return items as bytes.

        Parameters
        ----------
        start, stop : int
            Items ``start <= n < stop``; all by default. Negative ones count from the end.

        Raises
        ------
        Changed, NotFound, Unavailable, Unsupported
        """
        axis = _one_axis(slice(start, stop), self.nitems, "frame")
        try:
            return self._read(axis, PART_BYTES)
        except TooLarge as error:  # the service makes smaller answers than ours
            if not self.typesize <= error.limit_bytes < PART_BYTES:
                raise
            return self._read(axis, error.limit_bytes)

    def _read(self, axis: Axis, part_bytes: int) -> bytes:
        data = bytearray(axis.count * self.typesize)
        view = memoryview(data)
        step = max(1, part_bytes // self.typesize)
        for first in range(axis.start, axis.stop, step):
            last = min(first + step, axis.stop)
            request = protocol.ask_items(self.path, first, last, self.etag)
            with self._transport.open(request) as body:
                if body.headers.get("Content-Type") != protocol.RAW:
                    raise Unsupported(f"{self._transport.url} does not send the items of frames as they are")
                start = (first - axis.start) * self.typesize
                body.read_into(view[start : start + (last - first) * self.typesize])
        return bytes(data)

    def __repr__(self) -> str:
        return f"<Frame {self.path}: {self.nitems:,} items of {self.typesize} bytes>"


class File(Dataset):
    """Any other file: its bytes.

    ``file[10:20]`` is ten of them, ``file[3]`` one.

    Attributes
    ----------
    size : int
        In bytes.
    error : str or None
        Why it is not an array or a frame, if its name promises one.
    """

    def __init__(self, transport: Transport, info: Mapping[str, Any]) -> None:
        super().__init__(transport, info)
        self.size: int = info["size"]
        self.error: str | None = info.get("error")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: int | slice) -> bytes:
        axis = _one_axis(key, self.size, "file")
        return self.read(axis.start, axis.count)

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return bytes of the file.

        Parameters
        ----------
        offset : int
            First byte; a negative one counts from the end.
        size : int, optional
            At most so many bytes; to the end by default.

        Raises
        ------
        Changed, NotFound, Unavailable
        """
        start = max(0, self.size + offset) if offset < 0 else min(offset, self.size)
        stop = self.size if size is None or size < 0 else min(self.size, start + size)
        if start == stop:
            return b""
        request = protocol.ask_bytes(self.path, start, stop, self.etag)
        with self._transport.open(request) as body:
            if body.status != 206:
                raise Caterva2Error(f"{self._transport.url} does not serve ranges of bytes")
            data = bytearray(stop - start)
            body.read_into(memoryview(data))
        return bytes(data)

    def __repr__(self) -> str:
        why = f", {self.error}" if self.error else ""
        return f"<File {self.path}: {self.size:,} bytes{why}>"


def _one_axis(key: Any, length: int, what: str) -> Axis:
    axis = select(key, (length,)).axes[0]
    if axis.step != 1 or axis.reverse:
        raise InvalidSelection(f"a {what} is read in steps of 1: take every n-th of the result instead")
    return axis
