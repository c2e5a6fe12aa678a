"""``python -m benchmarks.peers``: start all systems, compare their answers, measure, and write the tables."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.case import CASES
from benchmarks.peers.contender import say
from benchmarks.peers.plan import PLANS
from benchmarks.peers.report import markdown
from benchmarks.peers.run import PARTS, Run
from benchmarks.peers.services import REPOSITORY
from benchmarks.peers.systems import SYSTEMS

BEGIN, END = "<!-- bench-peers: begin -->", "<!-- bench-peers: end -->"


def main() -> None:
    """Run as the command line says."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: everything is stopped
    plan = PLANS[options.size]
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    chosen = [one for one in SYSTEMS if not options.only or one.name in options.only]
    home: Path = options.directory
    scratch = home / f"run-{os.getpid()}"
    run = Run(chosen, CASES[options.size], plan, home, scratch)
    try:
        run.measure(options.parts, lambda: write(home, options.name or options.size, run.summary()))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    results = run.summary()
    text = markdown(results)
    print(text)
    if options.into:
        paste(options.into, text)
    say(f"took {results['seconds']} s; the tables are in {home}")


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


def write(home: Path, name: str, results: dict[str, Any]) -> None:
    """Write the numbers and the tables made from them."""
    (home / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (home / f"{name}.md").write_text(markdown(results))


def paste(page: Path, text: str) -> None:
    """Put tables into a page in place of those that it has."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{page} has no {BEGIN} … {END}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
