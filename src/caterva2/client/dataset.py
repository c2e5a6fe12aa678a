"""Datasets at a version: what all kinds share, and those that are not arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, Protocol, Self, TypeVar

from caterva2.client import protocol
from caterva2.client.described import Described, DescribedFile, DescribedFrame, nitems_of
from caterva2.client.notebook import dataset_html
from caterva2.client.progress import Meter
from caterva2.client.protocol import PART_BYTES, Request
from caterva2.client.shared import configured_transport
from caterva2.client.text import human_bytes
from caterva2.client.transport import Body, Transport
from caterva2.client.underway import UnderWay
from caterva2.client.versions import read_version
from caterva2.errors import Caterva2Error, InvalidSelection, TooLarge, Unsupported
from caterva2.model.selection import Axis, select

__all__ = ["Dataset", "File", "Frame", "check_items", "check_range", "one_axis", "span_of"]

T = TypeVar("T")
D = TypeVar("D", bound="Dataset")


class Dataset(Described):
    """A dataset at the version that was current when it was opened.

    Every read is of that version. When another one is published, reads go on for as long as the service has
    the bytes of the old one, and raise `Changed`, with both etags, where it has not; `refresh` goes to the
    new one, and nothing else does. Can be used by several threads: a read that is under way while another one
    refreshes is of the old version.

    It pickles as the URL of its subscriber and its metadata. Where it is unpickled, nothing is asked; the
    token is the one that is configured there, and the connections are shared with all others.

    Attributes
    ----------
    path : str
        ``root/dir/name``.
    kind : str
        ``array``, ``frame`` or ``file``.
    info : dict
        All metadata of the version, as ``/api/info`` has it. Not to be changed.
    """

    def __init__(self, transport: Transport, info: Mapping[str, Any]) -> None:
        super().__init__(info)
        self._transport = transport

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return _unpickled, (type(self), self._transport.url, self.info)

    def __copy__(self) -> Self:
        """Return one of its own at this version: a `refresh` of either leaves the other where it is."""
        return type(self)(self._transport, self.info)

    def __deepcopy__(self, memo: object) -> Self:
        return copy(self)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return type(self).__name__, self.path, self.etag

    @property
    def url(self) -> str:
        """URL of its stored bytes."""
        return protocol.dataset_url(self._transport.url, self.path)

    def refresh(self) -> bool:
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
        info = protocol.read_info(self._transport.call(protocol.ask_info(self.path)))
        return self._goes_to(info)

    def _ask(
        self,
        request: Request,
        info: Mapping[str, Any],
        read: Callable[[Body], T],
        *,
        nbytes: int = 0,
        under_way: UnderWay | None = None,
        meter: Meter | None = None,
    ) -> T:
        etag, transport = info["etag"], self._transport
        return read_version(
            transport, request, self.path, etag, read, nbytes=nbytes, under_way=under_way, meter=meter
        )


class Frame(DescribedFrame, Dataset):
    """A plain Blosc2 super-chunk: items of some bytes each.

    ``frame[3]`` is an item, ``frame[10:20]`` the bytes of ten of them.
    """

    def __getitem__(self, key: int | slice) -> bytes:
        return self._items(key, self.info)

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
        return self._items(slice(start, stop), self.info)

    def _items(self, key: int | slice, info: Mapping[str, Any]) -> bytes:
        axis = one_axis(key, nitems_of(info), "frame")
        try:
            return self._read(axis, info, PART_BYTES)
        except TooLarge as error:  # the service makes smaller answers than ours
            if not info["typesize"] <= error.limit_bytes < PART_BYTES:
                raise
            return self._read(axis, info, error.limit_bytes)

    def _read(self, axis: Axis, info: Mapping[str, Any], part_bytes: int) -> bytes:
        typesize: int = info["typesize"]
        data = bytearray(axis.count * typesize)
        view = memoryview(data)
        step = max(1, part_bytes // typesize)
        with self._transport.meter(self.path, len(data)) as meter:
            for first in range(axis.start, axis.stop, step):
                last = min(first + step, axis.stop)
                part = view[(first - axis.start) * typesize : (last - axis.start) * typesize]
                request = protocol.ask_items(self.path, first, last, info["etag"])
                self._ask(request, info, _items_into(part), nbytes=len(part), meter=meter)
        return bytes(data)

    def __repr__(self) -> str:
        return f"<Frame {self.path}: {self.nitems:,} items of {self.typesize} bytes>"

    def _repr_html_(self) -> str:
        size = f"{human_bytes(self.nbytes)}, {human_bytes(self.cbytes)} compressed"
        said = [("items", f"{self.nitems:,} of {self.typesize} bytes"), ("size", size)]
        return dataset_html(f"Frame {self.path}", said, self.info)


class File(DescribedFile, Dataset):
    """Any other file: its bytes.

    ``file[10:20]`` is ten of them, ``file[3]`` one.
    """

    def __getitem__(self, key: int | slice) -> bytes:
        info = self.info
        axis = one_axis(key, info["size"], "file")
        return self._read(axis.start, axis.stop, info)

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
        info = self.info
        return self._read(*span_of(offset, size, info["size"]), info)

    def _read(self, start: int, stop: int, info: Mapping[str, Any]) -> bytes:
        data = bytearray(stop - start)
        view = memoryview(data)
        with self._transport.meter(self.path, len(data)) as meter:
            for first in range(start, stop, PART_BYTES):
                last = min(first + PART_BYTES, stop)
                part = view[first - start : last - start]
                request = protocol.ask_bytes(self.path, first, last, info["etag"])
                self._ask(request, info, _range_into(part), nbytes=len(part), meter=meter)
        return bytes(data)

    def __repr__(self) -> str:
        why = f", {self.error}" if self.error else ""
        return f"<File {self.path}: {self.size:,} bytes{why}>"

    def _repr_html_(self) -> str:
        said = [("size", human_bytes(self.size))]
        if self.error:
            said.append(("unreadable", self.error))
        return dataset_html(f"File {self.path}", said, self.info)


def _unpickled(kind: type[D], url: str, info: Mapping[str, Any]) -> D:
    return kind(configured_transport(url), info)


def _items_into(target: memoryview) -> Callable[[Body], None]:
    def read(body: Body) -> None:
        check_items(body)
        body.read_into(target)

    return read


def _range_into(target: memoryview) -> Callable[[Body], None]:
    def read(body: Body) -> None:
        check_range(body)
        body.read_into(target)

    return read


class Answered(Protocol):
    """The head of an answer."""

    url: str
    status: int
    headers: Mapping[str, str]


def check_items(body: Answered) -> None:
    """Raise `Unsupported` unless an answer is the items of a frame as they are in memory."""
    if body.headers.get("Content-Type") != protocol.RAW:
        raise Unsupported(f"{body.url} does not send the items of frames as they are")


def check_range(body: Answered) -> None:
    """Raise `Caterva2Error` unless an answer is a range of bytes."""
    if body.status != 206:
        raise Caterva2Error(f"{body.url} does not serve ranges of bytes")


def span_of(offset: int, size: int | None, length: int) -> tuple[int, int]:
    """Return where a read of a file of some length begins and ends; see `File.read`."""
    start = max(0, length + offset) if offset < 0 else min(offset, length)
    return start, length if size is None or size < 0 else min(length, start + size)


def one_axis(key: Any, length: int, what: str) -> Axis:  # Any: what a user puts between brackets
    """Return what an integer or a slice without steps selects of so many items or bytes.

    Raises
    ------
    InvalidSelection
    """
    axis = select(key, (length,)).axes[0]
    if axis.step != 1 or axis.reverse:
        raise InvalidSelection(f"a {what} is read in steps of 1: take every n-th of the result instead")
    return axis
