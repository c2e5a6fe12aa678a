"""A system that runs: its services, its reader, and the comparison of its answers."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.case import KINDS, Case
from benchmarks.peers.reader import Reader
from benchmarks.peers.results import Result
from benchmarks.peers.services import NotRun, Services
from benchmarks.peers.values import digest

__all__ = ["Contender", "Expected", "attempt", "say"]


class Expected:
    """What the right answers are.

    Parameters
    ----------
    values : Path
        The array as ``.npy``.
    case : Case
    """

    def __init__(self, values: Path, case: Case) -> None:
        import numpy as np

        self._values = np.load(values, mmap_mode="r")
        self._case = case
        self.digest = functools.cache(self._digest)

    def _digest(self, kind: str, seed: int) -> list[object]:
        return digest(self._values[self._case.key(kind, seed)])

    def check(self, answer: Any, kind: str, seed: int) -> None:
        """Raise `NotRun` if an answer is wrong."""
        if answer != self.digest(kind, seed):
            raise NotRun(f"a wrong answer: {kind} of seed {seed} is {answer}, not {self.digest(kind, seed)}")


@dataclass
class Contender:
    """A system that takes part, and what is known of it so far."""

    result: Result
    case: Case
    python: Path
    data: Path
    directory: Path
    services: Services
    reader: Reader
    port: int = 0

    @property
    def address(self) -> str:
        """Where readers open the array."""
        return self.result.system.address(self.port, self.data)

    def start(self) -> None:
        """Start its services and have the array opened."""
        self.result.version = self.reader.ask("version")
        self.port = self.result.system.serve(self.services, self.data)
        self.result.more["open_ms"] = self.reader.open(self.address) * 1e3

    def verify(self, expected: Expected) -> None:
        """Compare answers of all kinds, the whole among them, after which all caches are warm."""
        for kind in (*KINDS, *KINDS[:2] * 5):
            seed = -1 if kind == "whole" else len(kind)
            expected.check(self.reader.ask("digest", kind=kind, seed=seed), kind, seed)


def attempt(result: Result, what: str, work: Callable[..., object], *arguments: object) -> bool:
    """Do a part of the work for a system; says and keeps why, if it cannot be done."""
    if result.not_run:
        return False
    try:
        work(*arguments)
    except NotRun as error:
        result.not_run = f"{what}: {error}"
        say(f"{result.system.name} is out, {result.not_run}")
    return not result.not_run


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)
