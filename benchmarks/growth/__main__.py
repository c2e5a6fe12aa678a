"""What it costs as it grows: ``python -m benchmarks.growth [PART…] [--small]``; ``make bench-growth`` is all.

Tables of time and memory, each at several sizes, as Markdown and JSON in ``build/bench-growth``. All services
are processes of their own, on this machine; the parts are arrays, roots, connections, caches and fairness.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.growth.arrays import arrays
from benchmarks.growth.caches import caches
from benchmarks.growth.connections import connections
from benchmarks.growth.fairness import fairness
from benchmarks.growth.roots import roots
from benchmarks.growth.table import Table

PARTS: dict[str, Callable[[Path, bool], Table]] = {
    "arrays": lambda at, small: arrays(at, (30, 100) if small else (100, 316, 1000)),
    "roots": lambda at, small: roots(at, (1000, 3000) if small else (1000, 10_000, 100_000)),
    "connections": lambda at, small: connections(at, (5, 20) if small else (10, 100, 500)),
    "caches": lambda at, small: caches(at, (30, 100) if small else (100, 316, 1000)),
    "fairness": lambda at, small: fairness(at, 64 if small else 1024),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds, to see that it runs")
    given = parser.parse_args()
    tables = {}
    for part in given.parts or PARTS:
        directory = Path(tempfile.mkdtemp(prefix="caterva2-growth-"))
        try:
            tables[part] = PARTS[part](directory, given.small)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        print(f"\n{tables[part].markdown()}\n", flush=True)
        write(Path("build/bench-growth"), part, tables[part])


def write(directory: Path, part: str, table: Table) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    when = datetime.now(UTC).isoformat(timespec="minutes")
    where = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    load = os.getloadavg()[1]
    (directory / f"{part}.md").write_text(f"{table.markdown()}\n\n{when}, {where}; load {load:.1f}\n")
    measured = {"when": when, "where": where, "load": load, **table.json()}
    (directory / f"{part}.json").write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
