"""``cat2 cache``: what a subscriber has, what it keeps, whether it is right."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.exit_codes import ExitCode
from caterva2.cli.options import Connection, Json
from caterva2.cli.output import counted, human_bytes, print_json
from caterva2.cli.patterns import First, More, for_each
from caterva2.cli.progress import bytes_progress
from caterva2.cli.tables import print_table
from caterva2.client import CacheCheck, Cached

__all__ = ["drop", "fsck", "ls", "pin", "unpin"]

DEFAULT = Connection()

Optional = Annotated[
    str | None, Parameter(name="PATTERN", help="A dataset, a root or a glob: foo, 'foo/dir1/*'; else all.")
]


def ls(pattern: Optional = None, /, *, json: Json = False, connection: Connection = DEFAULT) -> None:
    """List what is cached: versions, how much of each, when it was last used."""
    with connection.open() as client:
        rows = client.cache.list(pattern)
    if json:
        print_json([asdict(row) for row in rows])
        return
    print_table(("path", "size", "cached", "complete", "last used", "notes"), [_row(row) for row in rows])
    total = human_bytes(sum(row.cached_bytes for row in rows))
    print(f"{counted(len(rows), 'version')}, {total} cached", file=sys.stderr)


def _row(row: Cached) -> tuple[str, ...]:
    used = datetime.fromtimestamp(row.last_used).isoformat(" ", "seconds")
    notes = [word for word, is_so in (("pinned", row.pinned), ("outdated", not row.current)) if is_so]
    complete = "yes" if row.complete else "no"
    return row.path, human_bytes(row.size), human_bytes(row.cached_bytes), complete, used, ", ".join(notes)


def pin(first: First, /, *more: More, json: Json = False, connection: Connection = DEFAULT) -> None:
    """Keep what is cached of datasets, however much space is needed."""
    with connection.open() as client:
        for_each((first, *more), client.cache.pin, "pinned", json=json)


def unpin(first: First, /, *more: More, json: Json = False, connection: Connection = DEFAULT) -> None:
    """Pin no more. What is cached stays until its space is needed."""
    with connection.open() as client:
        for_each((first, *more), client.cache.unpin, "not pinned", json=json)


def drop(first: First, /, *more: More, json: Json = False, connection: Connection = DEFAULT) -> None:
    """Drop what is cached of datasets, pinned or not. It is fetched again when it is read."""
    rows = []
    with connection.open() as client:
        for pattern in (first, *more):
            datasets, freed_bytes = client.cache.drop(pattern)
            rows.append({"pattern": pattern, "datasets": datasets, "freed_bytes": freed_bytes})
            if not json:
                what = counted(datasets, "dataset")
                print(f"dropped {pattern}: {what}, {human_bytes(freed_bytes)}", file=sys.stderr)
    if json:
        print_json(rows)


def fsck(pattern: Optional = None, /, *, json: Json = False, connection: Connection = DEFAULT) -> int:
    """Hash all that is cached again, and fetch again what is wrong. Exit code 1 if anything was."""
    found: list[CacheCheck] = []
    with connection.open() as client:
        cached = client.cache.list(pattern)
        sizes = dict.fromkeys((row.path for row in cached), 0)
        for row in cached:
            sizes[row.path] += row.cached_bytes
        done, total_bytes = 0, sum(sizes.values())
        with bytes_progress("checking") as show:
            for path, nbytes in sizes.items():  # one at a time: that is what the bar shows
                if show is not None:
                    show(done, total_bytes)
                found += [row for row in client.cache.fsck(path) if row.path == path]
                done += nbytes
    sound = all(row.sound for row in found)
    names = [field.name for field in fields(CacheCheck) if field.name not in ("path", "etag")]
    total = {name: sum(getattr(row, name) for row in found) for name in names}
    if json:
        print_json({"sound": sound, "total": total, "rows": [asdict(row) for row in found]})
    else:
        _report(found, total)
    return ExitCode.OK if sound else ExitCode.FAILED


def _report(found: list[CacheCheck], total: dict[str, int]) -> None:
    counts = ("extents", "wrong", "repaired", "dropped", "unreadable")
    damaged = [row for row in found if not row.sound]
    if not found:
        print("nothing of that is cached: cat2 cache ls", file=sys.stderr)
        return
    if damaged:
        print_table(
            ("path", *counts, "corrected"),
            [
                (row.path, *(str(getattr(row, name)) for name in counts), f"{row.corrected_bytes:+d} B")
                for row in damaged
            ],
        )
    print(
        f"checked {counted(len(found), 'version')}, {counted(total['extents'], 'extent')}, "
        f"{human_bytes(total['bytes'])}: "
        + (f"{len(damaged)} not as they should be" if damaged else "all as they should be"),
        file=sys.stderr,
    )
