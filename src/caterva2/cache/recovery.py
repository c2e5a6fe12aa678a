"""What a start finds on disk: which versions are here, and how much of each.

An index row without its mirror is dropped, a mirror without its row is deleted, and a version that was being
changed when the process ended is counted again from its presence map.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from caterva2.cache.census import count_extents, present_bytes, stored_manifest
from caterva2.cache.index import Index, Row, RowState
from caterva2.cache.mirror import Mirror
from caterva2.cache.pool import MirrorPool
from caterva2.cache.version import Version
from caterva2.database import put_aside
from caterva2.model.extents import digest

__all__ = ["is_complete", "mirror_name", "open_index", "recover", "row_state"]

log = logging.getLogger(__name__)


def mirror_name(version: int) -> str:
    """Return the private name of the mirror of a version, by its id in the index."""
    return digest(b"mirror %d" % version).hex()


def row_state(version: Version) -> RowState:
    """Return what `Index.update` takes."""
    return version.id, version.cached_bytes, version.complete, version.last_used


def open_index(file: Path, pool: MirrorPool, *, durable: bool) -> tuple[Index, list[Version]]:
    """Open an index, make it and the mirrors agree, and return it with the versions that are here.

    One that is damaged is put aside: then nothing is here.

    Raises
    ------
    OSError, sqlite3.Error
        If the disk cannot be used.
    ConfigError
        If it was written by a newer release.
    """
    try:
        return _open(file, pool, durable=durable)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        put_aside(file, error)
        return _open(file, pool, durable=durable)


def _open(file: Path, pool: MirrorPool, *, durable: bool) -> tuple[Index, list[Version]]:
    index = Index(file, durable=durable)
    try:
        return index, recover(index, pool)
    except BaseException:
        index.close()
        raise


def recover(index: Index, pool: MirrorPool) -> list[Version]:
    """Make the index and the mirrors agree, and return the versions that are here.

    Raises
    ------
    OSError, sqlite3.Error
        If the disk cannot be read. What cannot be written is found again by the next start.
    """
    rows = index.rows()
    names = pool.names()
    for orphan in names - {mirror_name(row.id) for row in rows}:
        pool.remove(orphan)
    lost = {row.id for row in rows if (row.cached_bytes or row.dirty) and mirror_name(row.id) not in names}
    versions = [_reopened(row, pool) for row in rows if row.id not in lost]
    unclean = [version for version in versions if version.dirty]
    for version in unclean:
        _recount(index, version)
    try:
        while index.remove(lost):
            pass
        index.settle(row_state(version) for version in unclean if not version.dirty)
    except sqlite3.Error as error:  # a full disk: what is here can be served nevertheless
        log.warning("what the start found of the cache cannot be written: %s", error)
    return versions


def _reopened(row: Row, pool: MirrorPool) -> Version:
    return Version(
        row.id,
        row.path,
        row.etag,
        row.generation,
        row.size,
        Mirror(pool, mirror_name(row.id), row.size, row.nextents),
        cached_bytes=row.cached_bytes,
        complete=row.complete or not row.size,
        last_used=row.last_used,
        dirty=row.dirty,
    )


def _recount(index: Index, version: Version) -> None:
    """Set `cached_bytes` and `complete` from the presence map."""
    head, pages = stored_manifest(index, version.id)
    if head is None or version.mirror is None:
        return
    numbers = version.mirror.numbers()
    version.cached_bytes, unknown = present_bytes(head, pages, numbers)
    version.mirror.clear(unknown)
    version.complete = len(pages) == head.npages and len(numbers) == count_extents(head, pages)
    version.dirty = False


def is_complete(index: Index, version: Version) -> bool:
    """Return whether all extents of a version are present."""
    head, pages = stored_manifest(index, version.id)
    if head is None or version.mirror is None or len(pages) != head.npages:
        return False
    return len(version.mirror.numbers()) == count_extents(head, pages)
