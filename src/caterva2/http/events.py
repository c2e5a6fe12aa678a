"""Server-sent events: the differences that a catalogue sees, streamed to clients.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse

from caterva2.model.catalogue import Catalogue, Event
from caterva2.model.pattern import check_pattern, matches
from caterva2.model.root import Entry

__all__ = ["EventStreams"]

KEEP_ALIVE_S = 15.0
"""Pause after which a comment is sent, in seconds, so that both sides notice a dead connection."""

MISSED = "missed"
"""Kind of what is sent in place of events that are not known any more: look at the catalogue again."""

QUEUE_EVENTS = 1000
"""Most events that wait for a slow client; beyond, it is told to look at the catalogue again."""


class EventStreams:
    """The event streams of one service.

    Parameters
    ----------
    catalogue : Catalogue
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._stopped = False

    @property
    def open(self) -> int:
        """Streams that clients read now."""
        return len(self._queues)

    @property
    def backlog(self) -> int:
        """Events that wait to be sent, in all streams."""
        return sum(queue.qsize() for queue in self._queues)

    def stop(self) -> None:
        """End all streams, those that begin later too."""
        self._stopped = True
        for queue in self._queues:
            _replace(queue, None)

    def response(self, pattern: str, last_event_id: str | None) -> Response:
        """Return a stream of the events that a pattern names.

        Parameters
        ----------
        pattern : str
            As in `caterva2.model.pattern`.
        last_event_id : str or None
            Resume behind this one; None begins with the next event.

        Raises
        ------
        InvalidPath
            If the pattern is none.
        """
        stream = self._stream(check_pattern(pattern), last_event_id)
        return StreamingResponse(
            stream,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _stream(self, pattern: str, last_event_id: str | None) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_EVENTS + 1)
        missed = self._catalogue.events_after(last_event_id)
        lost = missed is None

        def on_event(event: Event, _: Entry | None) -> None:
            nonlocal lost
            if not _named(pattern, event):
                return
            if queue.qsize() >= QUEUE_EVENTS:
                lost = True
                _replace(queue, event)
            else:
                queue.put_nowait(event)

        undo = self._catalogue.listen(on_event)
        self._queues.add(queue)
        try:
            # Who resumes has an id, and keeps it until the events it missed have arrived.
            yield self._alive() if last_event_id is None else b": resumed\n\n"
            for event in missed or []:
                if _named(pattern, event):
                    yield _encode(event)
            while not self._stopped:
                if lost:
                    lost = False
                    yield _missed(self._catalogue.last_event_id, pattern)
                try:
                    item = await asyncio.wait_for(queue.get(), KEEP_ALIVE_S)
                except TimeoutError:
                    yield self._alive() if queue.empty() else b": alive\n\n"
                    continue
                if item is None:
                    return
                yield _encode(item)
        finally:
            undo()
            self._queues.discard(queue)

    def _alive(self) -> bytes:
        """Return a comment, and the id to resume from: nothing before it is under way."""
        return f": alive\nid: {self._catalogue.last_event_id}\n\n".encode()


def _named(pattern: str, event: Event) -> bool:
    """Whether a pattern names an event; those of a root are named by all patterns below it."""
    if "/" not in event.path:
        return matches(pattern.partition("/")[0], event.path)
    return matches(pattern, event.path)


def _replace(queue: asyncio.Queue[Event | None], item: Event | None) -> None:
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(item)


def _encode(event: Event) -> bytes:
    return _encode_members(event._asdict())


def _missed(last_id: str, pattern: str) -> bytes:
    """Encode that events are not known any more, with the members that events have."""
    members = {"id": last_id, "kind": MISSED, "path": pattern, "time": time.time()}
    return _encode_members(members | {"etag": None, "generation": None})


def _encode_members(members: dict[str, Any]) -> bytes:
    return f"id: {members['id']}\nevent: {members['kind']}\ndata: {json.dumps(members)}\n\n".encode()
