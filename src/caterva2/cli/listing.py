"""``cat2 roots``, ``list``, ``tree``, ``info``, ``url``: what there is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from caterva2.cli.options import Connection, Json
from caterva2.cli.output import counted, human_bytes, human_shape, print_json, print_members
from caterva2.cli.tables import print_table
from caterva2.client import Followed, Row
from caterva2.client.dataset import Dataset
from caterva2.errors import NotFound

__all__ = ["info", "list_", "roots", "tree", "url"]

DEFAULT = Connection()


def roots(*, json: Json = False, connection: Connection = DEFAULT) -> None:
    """List the roots: who publishes what."""
    with connection.open() as client:
        found = client.roots()
    if json:
        rows = [{"root": root.name, **asdict(root)} for root in found]
        names = ["root", "state", "datasets", "bytes", "publisher", "title", "behind", "reset_at"]
        names += ["freshness", "age_s", "tiers"]
        print_json([{name: row[name] for name in names} for row in rows])
        return
    print_table(
        ("root", "state", "freshness", "age", "datasets", "bytes", "publisher", "title"),
        [
            (
                root.name,
                root.state,
                root.freshness,
                _age(root.age_s),
                str(root.datasets),
                human_bytes(root.bytes),
                root.publisher or "",
                root.title,
            )
            for root in found
        ],
    )
    for root in found:
        if root.behind:
            print(
                f"{root.name}: {counted(root.behind, 'dataset')} older at the publisher than what was seen "
                "here: not taken unless it is started with --reset",
                file=sys.stderr,
            )
    if not found:
        print("nothing is published yet: cat2 publisher NAME DIR", file=sys.stderr)


def list_(
    root: Annotated[
        str | None, Parameter(help="A root, or a directory in one; by default all roots.")
    ] = None,
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """List the datasets of a root, or of all."""
    with connection.open() as client:
        rows = client.list(root)
    if json:
        names = ("path", "kind", "size", "shape", "dtype", "etag", "generation", "mtime")
        print_json([{name: getattr(row, name) for name in names} for row in rows])
        return
    print_table(("path", "kind", "shape", "dtype", "size", "modified"), [_row(row) for row in rows])
    for row in rows:
        if row.error:
            print(f"{row.path} is served as bytes only: {row.error}", file=sys.stderr)


def _row(row: Row) -> Sequence[str]:
    modified = row.mtime[:19].replace("T", " ")
    return row.path, row.kind, human_shape(row.shape), row.dtype or "", human_bytes(row.size), modified


def tree(
    path: Annotated[
        str | None, Parameter(help="A root, or a directory in one; by default all roots.")
    ] = None,
    /,
    *,
    level: Annotated[int | None, Parameter(help="How deep it goes.", validator=Number(gte=1))] = None,
    count: Annotated[int, Parameter(help="Most datasets that are shown.", validator=Number(gte=1))] = 1000,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Show directories and datasets as a tree."""
    with connection.open() as client:
        of = client if path is None else client[path.rstrip("/")]
        if isinstance(of, Dataset):
            raise NotFound(of.path, f"{of.path!r} is a dataset: cat2 info {of.path} shows it")
        found = of.tree(level, count)
    print_json(found.to_json()) if json else print(found)


def info(
    path: Annotated[str | None, Parameter(help="A dataset; what is followed by default.")] = None,
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Show all metadata of a dataset; without one, what is followed and how much of it is cached."""
    with connection.open() as client:
        found: dict[str, Any] | list[Followed] = client.followed() if path is None else client.info(path)
    if isinstance(found, dict):
        print_json(found) if json else print_members(found)
        return
    if json:
        print_json([asdict(row) for row in found])
        return
    print_table(
        ("path", "size", "cached", "complete", "follows", "freshness", "age"),
        [_followed_row(row) for row in found],
    )
    if not found:
        print("nothing is followed: cat2 follow PATTERN, or cat2 info PATH", file=sys.stderr)


def _followed_row(row: Followed) -> Sequence[str]:
    complete = "yes" if row.complete else "no"
    cached = human_bytes(row.cached_bytes)
    size, age = human_bytes(row.size), _age(row.age_s)
    return row.path, size, cached, complete, row.mode, row.freshness, age


def _age(age_s: float | None) -> str:
    return "" if age_s is None else f"{age_s:.0f} s"


def url(
    path: Annotated[str, Parameter(help="A dataset: root/dir/name.")],
    /,
    *,
    version: Annotated[
        bool, Parameter(negative="", help="Of the version that is current now, for good: caches may keep it.")
    ] = False,
    json: Json = False,
    connection: Connection = DEFAULT,
) -> None:
    """Print the URL of a dataset's bytes, for curl, h5py over fsspec or a browser."""
    with connection.open() as client:
        address = client.url(path, client.info(path)["etag"] if version else None)
    print_json(address) if json else print(address)
