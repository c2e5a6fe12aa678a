"""``cat2 events``: what changes."""

from __future__ import annotations

import json as json_module
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from caterva2.cli.exit_codes import ExitCode
from caterva2.cli.options import Connection, Json
from caterva2.cli.output import visible
from caterva2.client import Client, Event, EventStream
from caterva2.model.pattern import is_glob

__all__ = ["events"]

DEFAULT = Connection()

Since = Annotated[str | None, Parameter(help="Begin behind the event of this id; --json prints them.")]
Count = Annotated[int | None, Parameter(help="End after so many.", validator=Number(gte=1))]
Seconds = Annotated[
    float | None,
    Parameter(help="End after so many seconds, with 1 if --count was not reached.", validator=Number(gte=0)),
]


def events(
    pattern: Annotated[str, Parameter(help="What to listen to; everything by default.")] = "*",
    /,
    *,
    since: Since = None,
    count: Count = None,
    for_s: Seconds = None,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> int:
    """Print changes as they are seen, one line each, until interrupted."""

    def on_loss(reason: str) -> None:
        _say(f"{reason}; trying to connect again")

    with connection.open() as client, client.events(pattern, since=since, on_loss=on_loss) as stream:
        _say(f"listening to {pattern} at {client.subscriber}")
        _look_for_root(client, pattern)
        with _ended_after(stream, for_s):
            printed = _print_events(islice(stream, count), json=json)
    return ExitCode.OK if count is None or printed == count else ExitCode.FAILED


def _look_for_root(client: Client, pattern: str) -> None:
    """Say so if what is listened to is not there: it may come later, or be a slip of the pen."""
    root = pattern.partition("/")[0]
    if not is_glob(root) and root not in client:
        _say(f"there is no root {root!r} yet: waiting for it")


@contextmanager
def _ended_after(stream: EventStream, seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, stream.close)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _print_events(stream: Iterable[Event], *, json: bool) -> int:
    """Print events as they come; return how many they were."""
    printed = 0
    for event in stream:
        print(json_module.dumps(asdict(event)) if json else _line(event), flush=True)
        printed += 1
        if event.kind == "missed":
            _say("events may have been missed: see what there is now, with cat2 list")
    return printed


def _line(event: Event) -> str:
    at = datetime.fromtimestamp(event.time).strftime("%H:%M:%S")
    return f"{at}  {visible(event.kind):<8}  {visible(event.path)}"


def _say(text: str) -> None:
    print(f"cat2: {text}", file=sys.stderr)
