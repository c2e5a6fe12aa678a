"""The SQLite files of state directories: opened alike, upgraded or refused alike, put aside when damaged."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from caterva2.errors import ConfigError

__all__ = ["connect", "open_database", "put_aside"]

BUSY_S = 10.0
"""How long one connection waits for another's write, in seconds."""

log = logging.getLogger(__name__)


def open_database(
    file: Path, schema: str, version: int, upgrades: Mapping[int, str] | None = None
) -> sqlite3.Connection:
    """Open a database, made if it is absent; one that is damaged is put aside and made anew.

    Parameters
    ----------
    file : Path
    schema : str
        Statements that make its tables, each ended by a semicolon.
    version : int
        Of the schema; kept in the file.
    upgrades : mapping of int to str, optional
        Statements that bring a database to a version from the one before it, by version;
        each between that of the file and `version` must be there.

    Returns
    -------
    sqlite3.Connection
        In autocommit, WAL, usable in any thread by one at a time.

    Raises
    ------
    ConfigError
        If it was written by a newer release, or cannot be opened.
    """
    try:
        return _open(file, schema, version, upgrades or {})
    except sqlite3.OperationalError as error:
        raise ConfigError(f"{file} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        put_aside(file, error)
        return _open(file, schema, version, upgrades or {})


def put_aside(file: Path, error: sqlite3.DatabaseError) -> None:
    """Rename a damaged database that nobody has open, so that it is not in the way of a new one.

    Raises
    ------
    OSError
    """
    log.warning("%s is damaged (%s): put aside as .damaged, starting anew", file, error)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{file}{suffix}").replace(f"{file}{suffix}.damaged")


def connect(file: Path) -> sqlite3.Connection:
    """Open a further connection to a database that `open_database` has opened.

    Raises
    ------
    sqlite3.Error
    """
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _open(file: Path, schema: str, version: int, upgrades: Mapping[int, str]) -> sqlite3.Connection:
    connection = connect(file)
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > version:
            raise ConfigError(
                f"{file} was written by a newer release (schema {found}, this one knows {version}): upgrade, "
                "or choose another --state directory"
            )
        if found < version:
            steps = [schema] if found == 0 else [upgrades[n] for n in range(found + 1, version + 1)]
            connection.executescript(f"BEGIN; {' '.join(steps)} PRAGMA user_version = {version}; COMMIT;")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
