"""The connection to a subscriber: roots, listings, datasets, follows, downloads, events."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from caterva2.client import protocol
from caterva2.client.array import Array
from caterva2.client.cache import Cache
from caterva2.client.completion import Completion
from caterva2.client.dataset import File, Frame
from caterva2.client.download import download
from caterva2.client.events import EventStream
from caterva2.client.group import Directory, Root
from caterva2.client.listing import below, names_of_all, rows_below
from caterva2.client.notebook import client_html
from caterva2.client.records import Download, Followed, RootInfo, Row, SourceInfo
from caterva2.client.shared import configured_transport
from caterva2.client.timings import Timing, parse_timing
from caterva2.client.transport import Transport
from caterva2.client.tree import MAX_NODES, Tree, grow
from caterva2.client.versions import newest_of
from caterva2.errors import InvalidPath, NotFound
from caterva2.model.path import DatasetPath, parse_path
from caterva2.model.pattern import FollowMode

__all__ = ["Client"]

_KINDS: dict[str, type[Array | Frame | File]] = {"array": Array, "frame": Frame, "file": File}


class Client(Mapping[str, Any]):
    """A connection to a subscriber, and the mapping of its roots.

    ``client["foo"]`` is a `Root`, ``client["foo/dir1"]`` a `Directory` in it, and
    ``client["foo/dir1/ds-2d.b2nd"]`` an `Array`, a `Frame` or a `File`. Make one with `connect`; it is a
    context manager, and can be used by several threads. It pickles as the URL of its subscriber.

    Parameters
    ----------
    transport : Transport
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._streams: set[EventStream] = set()
        self._completion = Completion(lambda: names_of_all(transport))

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return _unpickled, (self._transport.url,)

    def __copy__(self) -> Self:
        return self  # as files and connections do not multiply

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections, and end its event streams."""
        for stream in list(self._streams):
            stream.close()
        self._transport.close()

    @contextmanager
    def timings(self) -> Iterator[builtins.list[Timing]]:
        """Collect how the subscriber had the data of its answers, while inside.

        Yields
        ------
        list of Timing
            One for each part of an array that was asked for; grows as answers begin.
        """
        found: builtins.list[Timing] = []

        def heard(headers: Mapping[str, str]) -> None:
            if timing := parse_timing(headers.get("Server-Timing")):
                found.append(timing)

        self._transport.heard = heard
        try:
            yield found
        finally:
            self._transport.heard = None

    @property
    def subscriber(self) -> str:
        """URL of the subscriber."""
        return self._transport.url

    @property
    def cache(self) -> Cache:
        """What the subscriber has cached, and how to look after it."""
        return Cache(self._transport)

    def __repr__(self) -> str:
        return f"<Client of {self._transport.url}>"

    def _repr_html_(self) -> str:
        return client_html(self._transport.url)

    def _ipython_key_completions_(self) -> list[str]:
        return self._completion.names()

    # -- the mapping -----------------------------------------------------------------------------

    def __getitem__(self, path: str) -> Any:  # Any: a Root, a Directory, an Array, a Frame or a File
        """Return a root or a directory, or open a dataset: one request, two for a directory.

        Raises
        ------
        NotFound, InvalidPath, Unavailable
        """
        parsed = parse_path(path, allow_root="/" not in path)
        if parsed.name:
            return self._below_root(parsed)
        for root in self.roots():
            if root.name == parsed.root:
                return Root(self, root)
        raise NotFound(path, f"there is no root {path!r}")

    def _below_root(self, path: DatasetPath) -> Any:  # Any: a Directory, an Array, a Frame or a File
        try:
            info = self.info(str(path))
        except NotFound:
            if next(rows_below(self._transport, str(path)), None) is None:
                raise
            return Directory(self, str(path))
        return _KINDS[info["kind"]](self._transport, info)

    def __iter__(self) -> Iterator[str]:
        return iter([root.name for root in self.roots()])

    def __len__(self) -> int:
        return len(self.roots())

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self.get(path) is not None

    def get(self, path: str, default: Any = None) -> Any:
        """Return a root or a directory, or open a dataset; a default if there is none."""
        try:
            return self[path]
        except (NotFound, InvalidPath):
            return default

    # -- listings --------------------------------------------------------------------------------

    def roots(self) -> list[RootInfo]:
        """Return the roots, sorted by name.

        Raises
        ------
        Unavailable, Unauthorized
        """
        return protocol.read_roots(self._transport.call(protocol.ask_roots()))

    def list(self, path: str | None = None) -> list[Row]:
        """Return the datasets of a root, of a directory in it, or of all roots, sorted by path.

        Raises
        ------
        NotFound
            If there is no such root, or nothing at or below the path.
        InvalidPath, Unavailable, Unauthorized
        """
        if path is None:
            return [row for root in self for row in self.list(root)]
        return below(self._transport, path)

    def tree(self, level: int | None = None, max_nodes: int = MAX_NODES) -> Tree:
        """Return all roots and their datasets as a tree; see `Directory.tree`. Roots are its first level.

        Raises
        ------
        Unavailable, Unauthorized
        """
        transport = self._transport
        groups = (
            (root.name, f"{root.datasets} datasets", rows_below(transport, root.name))
            for root in self.roots()
        )
        return grow(transport.url, groups, level, max_nodes)

    def info(self, path: str) -> dict[str, Any]:
        """Return all metadata of a dataset.

        Raises
        ------
        NotFound, InvalidPath, Unavailable, Unauthorized
        """
        return protocol.read_info(self._transport.call(protocol.ask_info(path)))

    def url(self, path: str, etag: str | None = None) -> str:
        """Return the URL of the stored bytes of a dataset. Nothing is asked.

        Parameters
        ----------
        path : str
        etag : str, optional
            Of the version that it is to name: what is there never changes, and can be kept by any cache; once
            the version is gone, it is an error. By default the URL is of what is current.

        Raises
        ------
        InvalidPath
        """
        return protocol.dataset_url(self._transport.url, path, etag)

    def read(self, path: str, key: Any = ...) -> Any:  # Any: as `Array`, `Frame` and `File` take and give
        """Open a dataset and read a part of it, in whatever version it is now.

        ``client.read(path, key)`` is ``client[path][key]``, made again where the dataset is replaced between
        the two requests of that.

        Parameters
        ----------
        path : str
        key : int, slice, tuple, optional
            As in ``dataset[key]``; all by default.

        Raises
        ------
        NotFound, InvalidPath, InvalidSelection, Unavailable, TooLarge, Unsupported, IntegrityError
        Changed
            If it was replaced every time it was tried.
        """
        parse_path(path)
        return newest_of(lambda: self[path][key])

    # -- following -------------------------------------------------------------------------------

    def follow(self, pattern: str, mode: FollowMode = "cached") -> int:
        """Let the subscriber keep what a pattern names current.

        Parameters
        ----------
        pattern : str
            A dataset, a root, or a glob: ``foo``, ``foo/dir1/*``.
        mode : {"cached", "full", "meta"}
            What is fetched at once when a dataset changes: what was cached of it before, as far as it
            changed; all of it, also now; the metadata only. One that is followed already gets this mode.

        Returns
        -------
        int
            How many datasets it names now.

        Raises
        ------
        InvalidPath, Unavailable, Unauthorized
        NotFound
            If this is not a subscriber.
        """
        reply = self._transport.call(protocol.ask_follow(pattern, mode))
        return int(protocol.read_json(reply)["datasets"])

    def unfollow(self, pattern: str) -> int:
        """Stop following a pattern; returns how many datasets it names.

        Raises
        ------
        NotFound
            If it was not followed.
        InvalidPath, Unavailable, Unauthorized
        """
        reply = self._transport.call(protocol.ask_follow(pattern, None))
        return int(protocol.read_json(reply)["datasets"])

    def followed(self) -> builtins.list[Followed]:
        """Return the datasets that are followed, with the state of the cache.

        Raises
        ------
        Unavailable, Unauthorized
        NotFound
            If this is not a subscriber.
        """
        return protocol.read_followed(self._transport.call(protocol.ask_followed()))

    def sources(self, root: str | None = None) -> builtins.list[SourceInfo]:
        """Return whom the subscriber may ask for a root, by default for all: publisher and further sources.

        Raises
        ------
        Unavailable, Unauthorized
        NotFound
            If there is no such root, or this is not a subscriber.
        """
        found = protocol.read_sources(self._transport.call(protocol.ask_sources()))
        if root is None:
            return [source for sources in found.values() for source in sources]
        if root not in found:
            raise NotFound(root, f"there is no root {root!r}")
        return found[root]

    def events(
        self,
        pattern: str = "*",
        *,
        since: str | None = None,
        on_loss: Callable[[str], None] | None = None,
    ) -> EventStream:
        """Return an iterator over the differences that the subscriber sees from now on.

        It waits for the next one, and resumes when the connection was lost. What is named need not be there
        yet.

        Parameters
        ----------
        pattern : str
            As for `follow`; everything by default.
        since : str, optional
            The `Event.id` of an event: those behind it come first, or one of kind ``missed`` where the
            subscriber does not know them any more (it was restarted, or there were too many).
        on_loss : callable, optional
            Called with the reason when the connection is lost.

        Raises
        ------
        InvalidPath, Unavailable, Unauthorized
        """
        stream = EventStream(
            self._transport, pattern, since=since, on_loss=on_loss, on_close=self._streams.discard
        )
        self._streams.add(stream)
        return stream

    # -- downloads -------------------------------------------------------------------------------

    def download(
        self,
        path: str,
        directory: str | os.PathLike[str] = ".",
        progress: Callable[[int, int], None] | None = None,
    ) -> Download:
        """Save the whole file of a dataset, byte for byte and with its time of modification.

        A download that was broken off is resumed. The file appears under its name when it is complete.

        Parameters
        ----------
        path : str
        directory : path
            Where to put it; made if it is not there. ``~`` is the home directory.
        progress : callable, optional
            Called with the bytes that are there and the bytes of all, now and then; in place of the bar
            that a client shows which was made with ``progress=True``.

        Raises
        ------
        NotFound, InvalidPath, Unavailable, Unauthorized
        Changed
            If it was replaced faster than it could be downloaded, several times.
        OSError
            If it cannot be written: no space, no permission, another download of it is under way.
        """
        directory = Path(directory).expanduser()
        with self._transport.meter(path) as meter:
            shown = meter.move_to if progress is None and meter is not None else progress
            return download(self._transport, path, str(directory), shown)


def _unpickled(url: str) -> Client:
    return Client(configured_transport(url))
