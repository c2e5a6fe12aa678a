"""``cat2 follow``, ``unfollow``: what is kept current."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json
from caterva2.cli.patterns import First, More, for_each

__all__ = ["follow", "unfollow"]

DEFAULT = Connection()


def follow(first: First, /, *more: More, json: Json = False, connection: Connection = DEFAULT) -> None:
    """Keep datasets current at the subscriber."""
    with connection.open() as client:
        for_each((first, *more), client.follow, "following", json=json)


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
