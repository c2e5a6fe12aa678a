"""The process that reads, in the environment of one system: commands come as JSON lines, and so do answers.

``python -m benchmarks.peers.runner SYSTEM CASE``; see `benchmarks.peers.reader` for the other end.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.peers.case import CASES, Case
from benchmarks.peers.system import Read, System
from benchmarks.peers.systems import SYSTEMS
from benchmarks.peers.values import digest

SAMPLE_EVERY = 100
"""Of the reads of a crowd every so many is kept, and compared after the time is over."""


class Runner:
    """Answers commands; each method is one."""

    def __init__(self, system: System, case: Case) -> None:
        self.system = system
        self.case = case
        self.read: Read

    def do_prepare(self, values: str, target: str) -> None:
        """Write the values in the format of the system."""
        import numpy as np

        self.system.prepare(np.load(values, mmap_mode="r"), self.case, Path(target))

    def do_version(self) -> str | None:
        """Return the version of the package that is measured."""
        try:
            return version(self.system.package)
        except PackageNotFoundError:
            return None

    def do_open(self, address: str, scratch: str) -> float:
        """Open the array and return how long that took, in seconds."""
        begin = time.perf_counter()
        self.read = self.system.open(address, self.case, Path(scratch))
        return time.perf_counter() - begin

    def do_digest(self, kind: str, seed: int) -> list[Any]:
        """Read, and return what tells whether the answer is right."""
        return digest(self.read(self.case.key(kind, seed)))

    def do_read(self, kind: str, seeds: list[int]) -> dict[str, Any]:
        """Read some times; returns the seconds of each, and the CPU time of all."""
        seconds = []
        cpu = time.process_time()
        for key in [self.case.key(kind, seed) for seed in seeds]:
            begin = time.perf_counter()
            answer = self.read(key)
            seconds.append(time.perf_counter() - begin)
            del answer  # before the next one is made, as in a loop that is done with it
        return {"seconds": seconds, "cpu_s": time.process_time() - cpu}

    def do_crowd(
        self, kind: str, first: int, threads: int, begin_at: float, seconds: float
    ) -> dict[str, Any]:
        """Read in threads from one moment to another; returns the seconds of each read, and samples."""
        taken: list[list[float]] = [[] for _ in range(threads)]
        samples: list[tuple[int, Any]] = []
        errors: list[str] = []

        def one(thread: int) -> None:
            seed = first + thread * 1_000_000
            time.sleep(max(0.0, begin_at - time.monotonic()))
            try:
                while time.monotonic() < begin_at + seconds:
                    key = self.case.key(kind, seed)
                    begin = time.perf_counter()
                    answer = self.read(key)
                    taken[thread].append(time.perf_counter() - begin)
                    if seed % SAMPLE_EVERY == 0:
                        samples.append((seed, answer))
                    seed += 1
            except Exception as error:  # any peer's: it ends the measurement of that peer
                errors.append(f"{type(error).__name__}: {error}")

        crowd = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        if errors:
            raise RuntimeError(errors[0])
        late = time.monotonic() - begin_at
        digests = [(seed, digest(answer)) for seed, answer in samples]
        return {"seconds": list(chain.from_iterable(taken)), "samples": digests, "elapsed_s": late}

    def do_memory(self) -> int:
        """Return the most memory that this process had, in bytes."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(name: str, case: str) -> None:
    """Answer commands until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    runner = Runner(next(system for system in SYSTEMS if system.name == name), CASES[case])
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"is": getattr(runner, "do_" + command.pop("do"))(**command)}
        except Exception as error:  # any peer's: it is told, and the others go on
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
