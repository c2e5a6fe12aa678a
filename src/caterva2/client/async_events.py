"""Event streams on an event loop: as `caterva2.client.events`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable

from caterva2.client.async_transport import AsyncTransport
from caterva2.client.events import FIRST_PAUSE_S, LONGEST_PAUSE_S, SILENCE_S, EventParser
from caterva2.client.protocol import ask_events
from caterva2.client.records import Event
from caterva2.errors import Unavailable

__all__ = ["events"]


async def events(
    transport: AsyncTransport, pattern: str, since: str | None, on_loss: Callable[[str], None] | None
) -> AsyncGenerator[Event]:
    """Yield events, and go on when the connection was lost; see `AsyncClient.events`."""
    parser, pause_s, connected = EventParser(since), FIRST_PAUSE_S, False
    closings = transport.closings
    while transport.closings == closings:
        try:
            request = ask_events(pattern, parser.last_id)
            async with transport.open(request, silence_s=SILENCE_S) as body:
                async for piece in body.pieces():
                    pause_s, connected = FIRST_PAUSE_S, True
                    for event in parser.feed(piece):
                        yield event
            raise Unavailable(f"{transport.url} ended the stream of events")
        except Unavailable as error:
            if transport.closings != closings:
                return
            if not connected:
                raise
            if on_loss is not None and pause_s == FIRST_PAUSE_S:
                on_loss(str(error))
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # so that not all come back at once
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        parser = EventParser(parser.last_id)
