"""``python -m benchmarks.peers``: start all systems, compare their answers, measure, and write the tables."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.case import CASES, Case
from benchmarks.peers.contender import Contender, Expected, attempt, say
from benchmarks.peers.data import size_of, the_dataset, the_values
from benchmarks.peers.environments import python_of
from benchmarks.peers.far import far_reads
from benchmarks.peers.machine import describe, today
from benchmarks.peers.near import count_bytes, crowds, rounds
from benchmarks.peers.plan import PLANS, Plan
from benchmarks.peers.reader import Reader
from benchmarks.peers.report import markdown
from benchmarks.peers.results import Result
from benchmarks.peers.services import REPOSITORY, Services
from benchmarks.peers.system import System
from benchmarks.peers.systems import SYSTEMS

BEGIN, END = "<!-- bench-peers: begin -->", "<!-- bench-peers: end -->"
PARTS = ("rounds", "crowds", "bytes", "far")


def main() -> None:
    """Run as the command line says."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: everything is stopped
    case, plan = CASES[options.size], PLANS[options.size]
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    chosen = [one for one in SYSTEMS if not options.only or one.name in options.only]
    begin, load = time.monotonic(), os.getloadavg()[0]
    home: Path = options.directory
    run = home / f"run-{os.getpid()}"
    try:
        results = measure(chosen, case, plan, home, run, options.parts)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    results |= {"date": today(), "machine": describe(load), "seconds": round(time.monotonic() - begin)}
    text = write(home, options.name or case.name, results)
    if options.into:
        paste(options.into, text)


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    names = [system.name for system in SYSTEMS]
    parser.add_argument("--size", choices=CASES, default="full", help="small: whether all of it works")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {','.join(names)}")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=PARTS, help=",".join(PARTS))
    parser.add_argument("--rounds", type=int, help="how often each system has a turn, in place of the plan")
    parser.add_argument("--name", help="of the results, instead of the size")
    parser.add_argument("--into", type=Path, help="a page to paste the tables into, between its two marks")
    parser.add_argument("--directory", type=Path, default=REPOSITORY / "build" / "bench-peers")
    options = parser.parse_args()
    options.directory = options.directory.resolve()
    for given, known in ((options.only or (), names), (options.parts, PARTS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def measure(
    chosen: list[System], case: Case, plan: Plan, home: Path, run: Path, parts: list[str]
) -> dict[str, Any]:
    """Return all results, those of systems that could not be measured included."""
    results = [Result(system) for system in chosen]
    data = home / "data" / case.name
    expected = Expected(the_values(data, case), case)
    contenders: list[Contender] = []
    with ExitStack() as stack:
        for result in results:
            attempt(
                result,
                "start",
                lambda r: contenders.append(enter(r, case, home, run, stack)),
                result,
            )
        for contender in contenders:
            say(f"comparing answers of {contender.result.system.name}")
            attempt(contender.result, "comparison", contender.verify, expected)
        if "rounds" in parts:
            rounds(fit(contenders), plan)
        if "crowds" in parts:
            crowds(fit(contenders), plan, expected)
        if "bytes" in parts:
            count_bytes(fit(contenders), plan)
    if "far" in parts:
        far_reads(fit(contenders), plan)
    sizes = {one.result.system.dataset: size_of(one.data) for one in contenders}
    return {
        "array": describe_array(case, sizes),
        "link": "a link of 20 ms there and back and 100 Mbit/s",
        "systems": {result.system.name: result.summary(case) for result in results},
        "bytes_on_disk": sizes,
    }


def enter(result: Result, case: Case, home: Path, run: Path, stack: ExitStack) -> Contender:
    """Start a system, with its environment and its data made before if need be."""
    system = result.system
    say(f"starting {system.name}")
    python = python_of(system.environment, home / "env")
    writer = next(one for one in SYSTEMS if one.dataset == system.dataset)
    writer_python = python_of(writer.environment, home / "env")
    directory = run / system.name
    data = the_dataset(home / "data" / case.name, case, writer, writer_python, directory / "prepare")
    contender = Contender(
        result,
        case,
        python,
        data,
        directory,
        Services(directory / "services", python),
        Reader(system, case, python, directory / "reader"),
    )
    contender.start(stack)
    return contender


def fit(contenders: list[Contender]) -> list[Contender]:
    """Return those that still take part."""
    return [contender for contender in contenders if not contender.result.not_run]


def describe_array(case: Case, sizes: dict[str, int]) -> str:
    """Return what was read, in words."""
    nbytes = case.nbytes("whole")
    shape, chunks, blocks = ("x".join(map(str, part)) for part in (case.shape, case.chunks, case.blocks))
    ratios = ", ".join(f"{name} {nbytes / size:.2f}" for name, size in sizes.items() if size)
    return (
        f"The array: {nbytes >> 20} MiB of float32, {shape}, chunks {chunks}, blocks (and chunks in shards) "
        f"{blocks}, zstd-5 with shuffle in all formats; the cube has an edge of {case.cube}. "
        f"Compressed by: {ratios}."
    )


def write(home: Path, name: str, results: dict[str, Any]) -> str:
    """Write tables and numbers, show the tables, and return them."""
    (home / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    text = markdown(results)
    (home / f"{name}.md").write_text(text)
    print(text)
    say(f"took {results['seconds']} s; written to {home / name}.md and .json")
    return text


def paste(page: Path, text: str) -> None:
    """Put tables into a page in place of those that it has."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
