"""``cat2 sources``: who a subscriber may ask for what it does not have."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json
from caterva2.cli.output import human_bytes, print_json
from caterva2.cli.tables import print_table
from caterva2.client import SourceInfo

__all__ = ["sources"]

DEFAULT = Connection()


def sources(
    root: Annotated[str | None, Parameter(help="A root; by default all.")] = None,
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """List who the subscriber may ask for each root: its publisher, and further sources."""
    with connection.open() as client:
        found = client.sources(root)
    if json:
        print_json([asdict(source) for source in found])
        return
    columns = ("root", "url", "state", "kind", "rtt", "rejected", "requests", "bytes", "load", "hedged")
    print_table(columns, [_row(source) for source in found])
    if not found:
        print("nothing is published yet: cat2 publisher NAME DIR", file=sys.stderr)


def _row(source: SourceInfo) -> tuple[str, ...]:
    left = "" if source.until is None else f", {max(source.until - time.time(), 0):.0f} s"
    rtt = "" if source.rtt_ms is None else f"{source.rtt_ms:.2f} ms"
    moved = (str(source.rejected), str(source.requests), human_bytes(source.bytes))
    busy = (f"{source.load:.2f}", str(source.hedged))
    return source.root, source.url, source.state + left, source.kind, rtt, *moved, *busy
