"""``cat2 download``: whole files."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json
from caterva2.cli.output import human_bytes, print_json
from caterva2.cli.progress import bytes_progress

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
    with connection.open() as client, bytes_progress(path) as progress:
        record = client.download(path, directory, progress)
    if json:
        print_json(asdict(record))
        return
    print(record.file)
    kept = record.bytes - record.fetched_bytes
    resumed = f", {human_bytes(kept)} of it were there" if kept > 0 else ""
    print(f"{human_bytes(record.bytes)} in {record.seconds:.1f} s{resumed}", file=sys.stderr)
