"""For all tests: services as real processes, as a user starts them; logs go where pytest captures them."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

structlog.configure(
    logger_factory=structlog.stdlib.LoggerFactory(),
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells let what they start in the background ignore Ctrl-C, and children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

ON_ONE_MACHINE = {"CATERVA2_SUBSCRIBER_SLICES": "never"}
"""To who is busy a publisher beside may seem far enough for slices; what most tests count are extents."""

START_S = 30


class Process:
    """A `cat2` service in a process of its own; its stderr is read as it comes."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], directory: Path | None = None
    ) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "caterva2", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=directory,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for_line(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        """Return the first match of a pattern on stderr."""
        found: list[re.Match[str]] = []

        def seen() -> bool:
            matches = (re.search(pattern, line) for line in self.lines)
            found.extend(match for match in matches if match)
            return bool(found) or not self._reader.is_alive()

        with self._changed:
            self._changed.wait_for(seen, timeout_s)
        assert found, f"no line matches {pattern!r}:\n" + "\n".join(self.lines)
        return found[0]

    def url(self, service: str) -> str:
        """Return the URL that a service says it listens on."""
        return self.wait_for_line(rf"{service}\b.*?(https?://\S+)")[1]

    def kill(self) -> None:
        """Kill -9."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; return its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        code = self.popen.wait(timeout=15)
        self._reader.join(timeout=5)
        if self.popen.stderr:
            self.popen.stderr.close()
        return code


class Site:
    """An empty directory, and `cat2` in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[Process] = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CATERVA2_")
        }
        self.environment |= {
            "CATERVA2_CONFIG": str(directory / "none.toml"),
            "COLUMNS": "100",
            "PYTHONWARNINGS": "error",
            **ON_ONE_MACHINE,
        }

    def start(self, *arguments: str, directory: Path | None = None) -> Process:
        """Start a service, by default in the directory of the tests."""
        process = Process(list(arguments), self.environment, directory)
        self.processes.append(process)
        return process

    def start_three(
        self, root: Path, name: str = "foo", *, quota: str | None = None
    ) -> tuple[Process, Process, Process]:
        """Start a broker, a publisher of one root and a subscriber; commands find them."""
        anywhere = ["--listen", "127.0.0.1:0", "--state"]
        broker = self.start("broker", *anywhere, str(self.directory / "broker"))
        self.environment["CATERVA2_BROKER"] = broker.url("broker")
        publisher = self.start("publisher", name, str(root), *anywhere, str(self.directory / "publisher"))
        limit = [] if quota is None else ["--quota", quota]
        subscriber = self.start("subscriber", *anywhere, str(self.directory / "subscriber"), *limit)
        self.environment["CATERVA2_SUBSCRIBER"] = subscriber.url("subscriber")
        publisher.url("publisher")
        return broker, publisher, subscriber

    def run(self, *arguments: str, code: int = 0, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "caterva2", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.directory,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == code, f"{arguments} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill() if process.popen.poll() is None else None
            process.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def flip_blobs(database: Path, columns: Mapping[str, str], place: float = 0.5) -> int:
    """Flip a bit of every blob in columns of an SQLite file, given by table; return of how many blobs.

    Parameters
    ----------
    place : float
        Where in each blob: 0 is its begin, 1 its end.
    """
    flipped = 0
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in columns.items():
            for (blob,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall():
                changed = bytearray(blob)
                changed[int(place * len(blob))] ^= 1
                query = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
                flipped += connection.execute(query, (bytes(changed), blob)).rowcount
    return flipped


@pytest.fixture(name="flip_blobs")
def _flip_blobs():
    return flip_blobs
