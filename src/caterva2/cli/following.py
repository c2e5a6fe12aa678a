"""``cat2 follow``, ``unfollow``: what is kept current."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json
from caterva2.cli.patterns import First, More, for_each, mode_of
from caterva2.cli.progress import bytes_progress
from caterva2.client import Client
from caterva2.errors import ConfigError
from caterva2.model.pattern import check_pattern, matches

__all__ = ["follow", "unfollow"]

DEFAULT = Connection()

LOOK_S = 0.5
"""How often it is looked how far the subscriber is, in seconds."""


def follow(
    first: First,
    /,
    *more: More,
    full: Annotated[bool, Parameter(negative="", help="Keep all of them, not just what is cached.")] = False,
    meta: Annotated[bool, Parameter(negative="", help="Keep their metadata only.")] = False,
    wait: Annotated[
        bool, Parameter(negative="", help="With --full: return once all of them are here.")
    ] = False,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Keep datasets current at the subscriber: what is cached of them is refreshed as soon as it changes."""
    mode = mode_of(full=full, meta=meta) or "cached"
    if wait and mode != "full":
        raise ConfigError("--wait is for what is kept in full: give --full as well")
    with connection.open() as client:
        for_each((first, *more), lambda pattern: client.follow(pattern, mode), "following", json=json)
        if wait:
            _wait(client, (first, *more))


def _wait(client: Client, patterns: Sequence[str]) -> None:
    """Return when all that patterns name is at the subscriber; show how far it is meanwhile."""
    wanted = list(map(check_pattern, patterns))
    with bytes_progress("following") as show:
        while True:
            rows = [row for row in client.followed() if any(matches(one, row.path) for one in wanted)]
            if show is not None:
                show(sum(row.cached_bytes for row in rows), sum(row.size for row in rows))
            if all(row.complete for row in rows):
                return
            time.sleep(LOOK_S)


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
