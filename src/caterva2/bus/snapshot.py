"""All that a view knows, in one answer: for a new reader, whom the bus would tell it message by message.

Lines of JSON. The first is the position of the view. Each other one has a root, who serves it, and some of
its datasets: ``[root, url, title, instance, origin, via, [[name, etag, generation, …], …]]``. What the bus
tells from that position on, and the digest of a heartbeat, say whether it is right; who gets none reads the
bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import structlog

from caterva2.bus.client import CONNECT_S
from caterva2.bus.records import check_entry, dump, load, members_of
from caterva2.bus.view import Position
from caterva2.config import Token
from caterva2.errors import Corrupt, InvalidPath, Unavailable
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import check_name, check_root
from caterva2.turns import in_turns, runs

__all__ = ["Snapshots", "ask_snapshot", "take_snapshot"]

ROWS = 200
"""Datasets in a line: it is made, and taken, in one turn of the event loop."""

KEPT_S = 60.0
"""For how long an answer is kept for others who ask, in seconds."""

SILENT_S = 5.0
"""A broker that is silent for so long while it is asked has none, in seconds."""

log = structlog.get_logger(__name__)


class Snapshots:
    """Makes snapshots of a catalogue; who asks when nothing changed since gets the same one.

    Parameters
    ----------
    catalogue : Catalogue
    position : callable
        Returns the position of the view that fills it, or None.
    """

    def __init__(self, catalogue: Catalogue, position: Callable[[], Position | None]) -> None:
        self._catalogue = catalogue
        self._position = position
        self._one_at_a_time = asyncio.Lock()
        self._kept: tuple[tuple[str, int], bytes] | None = None
        self._forget_soon: asyncio.Handle | None = None

    async def body(self) -> bytes:
        """Return a snapshot.

        Raises
        ------
        Unavailable
            If the view is not in sync itself.
        """
        async with self._one_at_a_time:
            position = self._position()
            if position is None:
                raise Unavailable("the view of the bus is not complete yet")
            at = (position.epoch, position.revision)
            if self._kept is None or self._kept[0] != at:
                self._kept = at, await self._make()
            if self._forget_soon is not None:
                self._forget_soon.cancel()
            self._forget_soon = asyncio.get_running_loop().call_later(KEPT_S, self._forget)
            return dump(position) + self._kept[1]

    def _forget(self) -> None:
        self._kept = None

    async def _make(self) -> bytes:
        # sorted, so that who keeps them on disk writes each page once
        roots = [(root, dict(root.entries), root.names) for root in self._catalogue.roots.values()]
        lines = [b""]
        for root, entries, names in roots:
            who = [root.name, root.url, root.title, root.instance, root.origin, root.via]
            lines.append(dump([*who, []]))
            async for some in in_turns(runs(names, ROWS)):
                lines.append(dump([*who, [[name, *members_of(entries[name])] for name in some]]))
        return b"\n".join(lines)


async def ask_snapshot(url: str, token: Token | None) -> bytes | None:
    """Ask a broker for a snapshot.

    Returns
    -------
    bytes or None
        None if it has none, is of an older release, or does not answer.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.get(f"{url}/api/snapshot") as answer,
        ):
            return await answer.read() if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        log.debug("no snapshot", broker=url, reason=str(error) or type(error).__name__)
        return None


async def take_snapshot(body: bytes, catalogue: Catalogue) -> Position:
    """Fill a catalogue from a snapshot; others have their turn meanwhile.

    Returns
    -------
    Position
        How far the catalogue is now.

    Raises
    ------
    Corrupt
        If it is none. What came before that in it was taken.
    """
    first, *lines = body.split(b"\n")
    try:
        epoch, revision, heard_at, told = load(first)
        position = Position(str(epoch), int(revision), float(heard_at), tuple((n, at) for n, at in told))
        async for line in in_turns(lines):
            _take_line(line, catalogue)
    except (InvalidPath, TypeError, ValueError) as error:
        raise Corrupt(f"not a snapshot: {error}") from error
    return position


def _take_line(line: bytes, catalogue: Catalogue) -> None:
    name, url, title, instance, origin, via, rows = load(line)
    if check_root(name) not in catalogue.roots:
        catalogue.set_root(
            name,
            url=str(url),
            title=str(title),
            instance=str(instance),
            origin=str(origin),
            via=tuple(map(str, via)),
        )
    for dataset, *members in rows:
        catalogue.apply(name, check_name(name, dataset), check_entry(*members))
