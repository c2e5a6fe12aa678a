"""A run: systems are started, compared, and measured part by part; who fails is out, and the others go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers.case import Case
from benchmarks.peers.contender import Contender, Expected, attempt, say
from benchmarks.peers.data import size_of, the_dataset, the_values
from benchmarks.peers.environments import python_of
from benchmarks.peers.far import far_reads
from benchmarks.peers.machine import describe, today
from benchmarks.peers.near import count_bytes, crowds, rounds
from benchmarks.peers.plan import Plan
from benchmarks.peers.reader import Reader
from benchmarks.peers.results import Result
from benchmarks.peers.services import Services
from benchmarks.peers.system import System
from benchmarks.peers.systems import SYSTEMS

__all__ = ["PARTS", "Run"]

PARTS = ("rounds", "crowds", "bytes", "far")


class Run:
    """Some systems, and what is known of them so far.

    Parameters
    ----------
    chosen : sequence of System
    case : Case
    plan : Plan
    home : Path
        Where data and environments are kept.
    scratch : Path
        For what is needed during the run alone.
    """

    def __init__(self, chosen: Sequence[System], case: Case, plan: Plan, home: Path, scratch: Path) -> None:
        self.results = [Result(system) for system in chosen]
        self._case = case
        self._plan = plan
        self._home = home
        self._scratch = scratch
        self._contenders: list[Contender] = []
        self._began_at = time.monotonic()
        self._load = os.getloadavg()[0]

    def measure(self, parts: Collection[str], keep: Callable[[], object]) -> None:
        """Do all that was asked for; ``keep`` is called after each part, should the next one not end."""
        data = self._home / "data" / self._case.name
        expected = Expected(the_values(data, self._case), self._case)
        with ExitStack() as stack:
            for result in self.results:
                attempt(result, "start", self._enter, result, stack)
            for contender in self._contenders:
                say(f"comparing answers of {contender.result.system.name}")
                attempt(contender.result, "comparison", contender.verify, expected)
            if "rounds" in parts:
                rounds(self._fit(), self._plan)
                keep()
            if "crowds" in parts:
                crowds(self._fit(), self._plan, expected)
                keep()
            if "bytes" in parts:
                count_bytes(self._fit(), self._plan)
                keep()
        if "far" in parts:
            far_reads(self._fit(), self._plan)
            keep()

    def summary(self) -> dict[str, Any]:
        """Return what is known so far, systems that could not be measured included."""
        sizes = {one.result.system.dataset: size_of(one.data) for one in self._contenders}
        return {
            "date": today(),
            "machine": describe(self._load),
            "seconds": round(time.monotonic() - self._began_at),
            "array": self._describe_array(sizes),
            "link": "a link of 20 ms there and back and 100 Mbit/s",
            "systems": {result.system.name: result.summary(self._case) for result in self.results},
            "bytes_on_disk": sizes,
        }

    def _enter(self, result: Result, stack: ExitStack) -> None:
        """Start a system, with its environment and its data made before if need be."""
        system = result.system
        say(f"starting {system.name}")
        environments = self._home / "env"
        python = python_of(system.environment, environments)
        writer = next(one for one in SYSTEMS if one.dataset == system.dataset)
        directory = self._scratch / system.name
        data = the_dataset(
            self._home / "data" / self._case.name,
            self._case,
            writer,
            python_of(writer.environment, environments),
            directory / "prepare",
        )
        services = stack.enter_context(Services(directory / "services", python))
        reader = stack.enter_context(Reader(system, self._case, python, directory / "reader"))
        contender = Contender(result, self._case, python, data, directory, services, reader)
        contender.start()
        self._contenders.append(contender)

    def _fit(self) -> list[Contender]:
        """Return those that still take part."""
        return [contender for contender in self._contenders if not contender.result.not_run]

    def _describe_array(self, sizes: dict[str, int]) -> str:
        case = self._case
        nbytes = case.nbytes("whole")
        shape, chunks, blocks = ("x".join(map(str, part)) for part in (case.shape, case.chunks, case.blocks))
        ratios = ", ".join(f"{name} {nbytes / size:.2f}" for name, size in sizes.items() if size)
        return (
            f"The array: {nbytes >> 20} MiB of float32, {shape}, chunks {chunks}, blocks (and chunks in "
            f"shards) {blocks}, zstd-5 with shuffle in all formats; the cube has an edge of {case.cube}. "
            f"Compressed by: {ratios}."
        )
