"""``cat2 follow``, ``unfollow``: what is kept current."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json
from caterva2.cli.patterns import First, More, for_each, mode_of

__all__ = ["follow", "unfollow"]

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
    mode = mode_of(full=full, meta=meta) or "cached"
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
