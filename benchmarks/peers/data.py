"""The array in the formats of all systems, kept between runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.case import Case
from benchmarks.peers.contender import say
from benchmarks.peers.reader import Reader
from benchmarks.peers.system import System
from benchmarks.peers.values import write_values

__all__ = ["size_of", "the_dataset", "the_values"]


def the_values(directory: Path, case: Case) -> Path:
    """Return the array as ``.npy``; what was made for another case is deleted."""
    values = directory / "values.npy"
    stamp = directory / "case.json"
    wanted = json.dumps(asdict(case))
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        say(f"generating {case.nbytes('whole') >> 20} MiB")
        write_values(values, case)
        stamp.write_text(wanted)
    return values


def the_dataset(directory: Path, case: Case, system: System, python: Path, scratch: Path) -> Path:
    """Return the directory of a system's dataset, which it writes itself if it is not there."""
    target = directory / system.dataset
    if not target.exists():
        say(f"writing {system.dataset}")
        part = directory / f"{system.dataset}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        with Reader(system, case, python, scratch) as writer:
            writer.ask("prepare", values=str(directory / "values.npy"), target=str(part))
        part.rename(target)
    return target


def size_of(dataset: Path) -> int:
    """Return what a dataset takes, in bytes."""
    return sum(path.stat().st_size for path in dataset.rglob("*") if path.is_file())
