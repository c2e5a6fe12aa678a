from __future__ import annotations

import sqlite3

import pytest

from caterva2.database import connect, open_database
from caterva2.errors import ConfigError

SCHEMA = "CREATE TABLE things (name TEXT);"


def test_what_is_written_is_there_again(tmp_path) -> None:
    database = open_database(tmp_path / "db é", SCHEMA, 3)
    database.execute("INSERT INTO things VALUES ('x')")
    other = connect(tmp_path / "db é")
    assert other.execute("SELECT name FROM things").fetchall() == [("x",)]
    other.close()
    database.close()
    database = open_database(tmp_path / "db é", SCHEMA, 3)
    assert database.execute("SELECT name FROM things").fetchall() == [("x",)]
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_a_newer_one_is_refused(tmp_path) -> None:
    open_database(tmp_path / "db", SCHEMA, 4).close()
    with pytest.raises(ConfigError, match="newer release"):
        open_database(tmp_path / "db", SCHEMA, 3)


@pytest.mark.parametrize("junk", [b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_one_is_put_aside(tmp_path, junk, caplog) -> None:
    (tmp_path / "db").write_bytes(junk * 100)
    database = open_database(tmp_path / "db", SCHEMA, 3)
    assert database.execute("SELECT count(*) FROM things").fetchone() == (0,)
    database.close()
    assert (tmp_path / "db.damaged").read_bytes() == junk * 100
    assert "damaged" in caplog.text


def test_a_directory_cannot_be_opened(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_database(tmp_path, SCHEMA, 3)


def test_a_schema_that_fails_leaves_no_table(tmp_path) -> None:
    with pytest.raises((sqlite3.Error, ConfigError)):
        open_database(tmp_path / "db", SCHEMA + "nonsense;", 3)


def test_an_older_one_is_upgraded_step_by_step(tmp_path) -> None:
    database = open_database(tmp_path / "db", SCHEMA, 1)
    database.execute("INSERT INTO things VALUES ('x')")
    database.close()
    steps = {2: "CREATE TABLE more (n INTEGER);", 3: "INSERT INTO more VALUES (7);"}
    for _ in range(2):
        database = open_database(tmp_path / "db", "never used;", 3, steps)
        assert database.execute("SELECT name FROM things").fetchall() == [("x",)]
        assert database.execute("SELECT n FROM more").fetchall() == [(7,)]
        database.close()


def test_an_upgrade_that_fails_changes_nothing(tmp_path) -> None:
    open_database(tmp_path / "db", SCHEMA, 1).close()
    with pytest.raises(ConfigError):
        open_database(tmp_path / "db", SCHEMA, 2, {2: "CREATE TABLE more (n INTEGER); nonsense;"})
    database = open_database(tmp_path / "db", SCHEMA, 1)
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("things",)]
    database.close()
