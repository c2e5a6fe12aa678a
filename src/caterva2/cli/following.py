"""``cat2 follow``, ``unfollow``, ``events``: what changes."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json
from caterva2.cli.patterns import First, More, for_each
from caterva2.client import Event
from caterva2.errors import ConfigError
from caterva2.model.pattern import FollowMode

__all__ = ["events", "follow", "unfollow"]

DEFAULT = Connection()


def follow(
    first: First,
    /,
    *more: More,
    full: Annotated[bool, Parameter(negative="", help="Keep all of them, not just what is cached.")] = False,
    meta: Annotated[bool, Parameter(negative="", help="Keep their metadata only.")] = False,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Keep datasets current at the subscriber: what is cached of them is refreshed as soon as it changes."""
    if full and meta:
        raise ConfigError("--full and --meta exclude each other")
    mode: FollowMode = "full" if full else "meta" if meta else "cached"
    with connection.open() as client:
        for_each((first, *more), lambda pattern: client.follow(pattern, mode), "following", json=json)


def unfollow(
    first: Annotated[str, Parameter(name="PATTERN", help="A pattern that is followed.")],
    /,
    *more: More,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Stop following. What is cached stays until its space is needed."""
    with connection.open() as client:
        for_each((first, *more), client.unfollow, "not following", json=json)


def events(
    pattern: Annotated[str, Parameter(help="What to listen to; everything by default.")] = "*",
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Print changes as they are seen, one line each, until interrupted."""

    def on_loss(reason: str) -> None:
        print(f"cat2: {reason}; trying to connect again", file=sys.stderr)

    with connection.open() as client, client.events(pattern, on_loss=on_loss) as stream:
        print(f"listening to {pattern} at {client.subscriber}", file=sys.stderr)
        for event in stream:
            print(json_module.dumps(asdict(event)) if json else _line(event), flush=True)


def _line(event: Event) -> str:
    at = datetime.fromtimestamp(event.time).strftime("%H:%M:%S")
    return f"{at}  {event.kind:<8}  {event.path}"
