"""``cat2 download``: whole files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json
from caterva2.cli.output import human_bytes, print_json

__all__ = ["download"]

DEFAULT = Connection()


def download(
    path: Annotated[str, Parameter(help="A dataset: root/dir/name.")],
    directory: Annotated[Path, Parameter(help="Where to put it; made if it is not there.")] = Path(),
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Save a dataset's file, byte for byte and with its time. A broken download is resumed."""
    with connection.open() as client, _progress(path) as progress:
        record = client.download(path, directory, progress)
    if json:
        print_json(asdict(record))
        return
    print(record.file)
    kept = record.bytes - record.fetched_bytes
    resumed = f", {human_bytes(kept)} of it were there" if kept > 0 else ""
    print(f"{human_bytes(record.bytes)} in {record.seconds:.1f} s{resumed}", file=sys.stderr)


@contextmanager
def _progress(path: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on the terminal; nothing where stderr is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(path, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
