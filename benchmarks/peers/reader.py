"""The other end of a runner: starts it, and asks it."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.case import Case
from benchmarks.peers.services import REPOSITORY, NotRun, last_line
from benchmarks.peers.system import System

__all__ = ["Reader"]

ANSWER_S = 240.0


class Reader:
    """A process that reads through a system. A context manager.

    Parameters
    ----------
    system : System
    case : Case
    python : Path
        The interpreter of the system's environment.
    directory : Path
        For its log and its scratch; it is made.
    """

    def __init__(self, system: System, case: Case, python: Path, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.system = system
        self._directory = directory
        self._opened = 0
        self._log = directory / "reader.log"
        paths = [str(REPOSITORY)]
        if not system.environment:  # ours: as this process finds it
            paths += filter(None, [os.environ.get("PYTHONPATH")])
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", "benchmarks.peers.runner", system.name, case.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,
                env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def open(self, address: str) -> float:
        """Have the array opened, with caches of the client empty; returns how long it took, in seconds."""
        self._opened += 1
        scratch = self._directory / f"scratch-{self._opened}"
        scratch.mkdir()
        return float(self.ask("open", address=address, scratch=str(scratch)))

    def ask(self, command: str, **arguments: Any) -> Any:
        """Give a command and return the answer.

        Raises
        ------
        NotRun
            If it fails, or does not answer.
        """
        self.tell(command, **arguments)
        return self.answer()

    def tell(self, command: str, **arguments: Any) -> None:
        """Give a command without waiting."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise NotRun(f"its reader ended: {last_line(self._log)}") from None

    def answer(self) -> Any:
        """Return the answer to the command that was given."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            raise NotRun(f"no answer within {ANSWER_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise NotRun(f"its reader ended: {last_line(self._log)}")
        answer = json.loads(line)
        if "error" in answer:
            raise NotRun(answer["error"])
        return answer["is"]
