"""Event streams: parsing them, and resuming after the connection was lost.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Generator
from typing import Self

from caterva2.client.protocol import ask_events
from caterva2.client.records import Event
from caterva2.client.transport import Transport
from caterva2.client.underway import UnderWay
from caterva2.errors import Caterva2Error, Unavailable
from caterva2.model.pattern import check_pattern

__all__ = ["EventParser", "EventStream"]

SILENCE_S = 40.0
"""A stream that is silent for this long is dead, in seconds: services send a comment every 15."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Pauses between attempts to connect again, in seconds: each twice the one before."""


class EventParser:
    """Makes events of the bytes of a stream.

    Attributes
    ----------
    last_id : str or None
        Where to resume.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}
        self.last_id = last_id

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that are complete with some more bytes."""
        lines = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        found = (self._line(line.decode(errors="replace")) for line in lines)
        return [event for event in found if event is not None]

    def _line(self, line: str) -> Event | None:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            known = self._fields.get(name)
            self._fields[name] = value if name != "data" or known is None else f"{known}\n{value}"
            return None
        fields, self._fields = self._fields, {}
        if "id" in fields:
            self.last_id = fields["id"]
        return self._event(fields) if "data" in fields else None

    def _event(self, fields: dict[str, str]) -> Event:
        try:
            data = json.loads(fields["data"])
            version = data.get("etag"), data.get("generation")
            return Event(fields.get("id"), data["kind"], data["path"], data["time"], *version)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Caterva2Error(f"an event cannot be understood: {fields['data'][:200]!r}") from error


class EventStream:
    """An iterator over events; make one with `Client.events`.

    It is connected once it is made. When the connection is lost, it is made again, for as long as it takes,
    and the events missed come first; if they are not known any more, an event of kind ``missed`` comes
    instead. Iterate in one thread; `close` it in any, which ends the iteration: it is a context manager.

    Iterating raises what a service says that refuses it when it is connected again (`Unauthorized`), or that
    cannot be understood (`Caterva2Error`); never `Unavailable`.
    """

    def __init__(
        self,
        transport: Transport,
        pattern: str,
        *,
        since: str | None = None,
        on_loss: Callable[[str], None] | None = None,
        on_close: Callable[[EventStream], object] | None = None,
    ) -> None:
        self._transport = transport
        self._pattern = check_pattern(pattern)
        self._parser = EventParser(since)
        self._on_loss = on_loss
        self._on_close = on_close
        self._under_way = UnderWay()
        self._closed = self._under_way.stopped
        self._ready: deque[Event] = deque()
        self._pieces = self._read()
        self._fill()  # the first piece says that the service listens from here on

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while not self._ready and not self._closed.is_set():
            self._fill_again()
        if self._closed.is_set():
            self._pieces.close()
            raise StopIteration
        return self._ready.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream; who waits for its next event sees its end."""
        self._under_way.stop()
        if self._on_close is not None:
            self._on_close(self)

    def _fill(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise Unavailable(f"{self._transport.url} ended the stream of events")
        self._ready.extend(self._parser.feed(piece))

    def _fill_again(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                self._fill()
            except Unavailable as error:
                if self._closed.is_set():
                    return
                if self._on_loss is not None and pause_s == FIRST_PAUSE_S:
                    self._on_loss(str(error))
            else:
                return
            self._closed.wait(pause_s * random.uniform(0.5, 1))  # so that not all come back at once
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._parser = EventParser(self._parser.last_id)
            self._pieces = self._read()

    def _read(self) -> Generator[bytes]:
        request = ask_events(self._pattern, self._parser.last_id)
        with self._transport.open(request, silence_s=SILENCE_S, under_way=self._under_way) as body:
            yield from body.pieces()
