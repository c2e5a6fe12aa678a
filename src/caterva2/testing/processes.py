"""Services as processes that start quickly, so that a test can afford to kill many of them.

They are forked from a process that has imported everything: a start takes some 100 ms in place of 1.5 s.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from caterva2.testing.waiting import wait_until

__all__ = ["ForkedService"]

START_S = 30.0
"""How long a start may take, in seconds."""

_PRELOADED = [f"caterva2.{name}.service" for name in ("broker", "publisher", "subscriber")]
_PRELOADED += ["caterva2.cli.services", "blosc2"]


class ForkedService:
    """A `cat2` service in a process of its own.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line, such as ``["broker", "--state", "…"]``.
    log : Path
        Where its stderr is appended.
    environment : mapping of str to str, optional
        Variables beside those of this process.

    Attributes
    ----------
    pid : int
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.log = log
        self._start = log.stat().st_size if log.exists() else 0
        variables = dict(environment or {})
        self._process = context.Process(
            target=_serve, args=(list(arguments), str(log), variables), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def wait_listening(self) -> str:
        """Wait until it listens; returns its URL.

        Raises
        ------
        RuntimeError
            If it ended instead.
        TimeoutError
        """
        wait_until(lambda: not self.alive or self._url(), START_S)
        url = self._url()
        if url is None:
            raise RuntimeError(f"it does not start:\n{self._said()}")
        return url

    def _url(self) -> str | None:
        found = re.search(r"listening on (http://\S+)", self._said())
        return None if found is None else found[1]

    def _said(self) -> str:
        with suppress(FileNotFoundError), self.log.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")
        return ""

    def children(self) -> list[int]:
        """Return the processes that it started, where the system shows them (Linux)."""
        with suppress(FileNotFoundError):
            return list(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))
        return []

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9, and wait for its end."""
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = ["cat2", *arguments]
    runpy.run_module("caterva2", run_name="__main__")
