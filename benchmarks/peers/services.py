"""Processes that serve, each in a session of its own, and all ended together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.peers.processes import family

__all__ = ["REPOSITORY", "NotRun", "Service", "Services", "free_port", "last_line"]

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60.0
STOP_S = 10.0


class NotRun(Exception):
    """A system cannot be measured; the text says why."""


def free_port() -> int:
    """Return a port of loopback that nobody has, for servers that do not choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Service:
    """A process that runs, and where it writes what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until it is ready.

        Raises
        ------
        NotRun
            If it ended, or takes longer than `START_S`.
        """
        deadline = time.monotonic() + START_S
        while not condition():
            if self.process.poll() is not None:
                raise NotRun(f"{self.name} ended: {last_line(self.log)}")
            if time.monotonic() > deadline:
                raise NotRun(f"{self.name} is not ready: {last_line(self.log)}")
            time.sleep(0.02)

    def wait_for_port(self, port: int) -> int:
        """Wait until it accepts connections at a port, and return that."""

        def accepts() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return True
            return False

        self.wait_until(accepts)
        return port

    def wait_for_words(self, pattern: str) -> str:
        """Wait until it says what matches a pattern, and return the first group."""
        found: list[str] = []

        def says() -> bool:
            found.extend(re.findall(pattern, self.log.read_text(errors="replace")))
            return bool(found)

        self.wait_until(says)
        return found[0]

    def stop(self) -> None:
        """End it and its session: kindly, then not."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end, and is killed", file=sys.stderr)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Services:
    """The services of one system. A context manager.

    Parameters
    ----------
    directory : Path
        For logs and state; it is made.
    python : Path
        The interpreter of the system's environment.
    """

    def __init__(self, directory: Path, python: Path) -> None:
        self.directory = directory
        self.python = python
        directory.mkdir(parents=True, exist_ok=True)
        self._running: list[Service] = []
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for service in reversed(self._running):
            service.stop()

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> Service:
        """Start a process; what it says goes to a log of that name."""
        self._started += 1
        log = self.directory / f"{self._started}-{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(os.environ) | dict(environment or {}),
                start_new_session=True,
            )
        self._running.append(Service(name, process, log))
        return self._running[-1]

    def end(self, name: str) -> None:
        """End those of a name before the others."""
        for service in [service for service in self._running if service.name == name]:
            service.stop()
            self._running.remove(service)

    def pids(self) -> list[int]:
        """Return all processes, descendants included."""
        return [pid for service in self._running for pid in family(service.process.pid)]


def last_line(log: Path) -> str:
    """Return the last words of a log."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it said nothing")
