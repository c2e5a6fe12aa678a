"""What a small slice moves through each client: ``python -m benchmarks.integrations [CLIENT…]``.

A slice of 10 x 10 x 10 elements of an array of 200 MB is read by each client twice, each time in a process
of its own: from a subscriber that has nothing, and once more. The table, as Markdown, is in
``build/bench-clients``.

From the publisher are the bodies that the subscriber got, by its metric ``upstream_bytes_total``; to the
client is all that went through its connections, with headers, counted on the way. Imports take no time
here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.integrations import readers
from benchmarks.integrations.data import write
from benchmarks.services import Three
from tests.conftest import Site

from caterva2.errors import Unsupported
from caterva2.testing.environments import python_with
from caterva2.testing.network import Network

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "bench-clients"
RELEASED = ROOT / "tests" / "system" / "released_client.txt"


@dataclass(frozen=True)
class Row:
    """What was measured of one client; or why it was not."""

    title: str
    version: str = ""
    upstream: int = 0
    received: int = 0
    seconds: float = 0.0
    again: int = 0
    again_received: int = 0
    again_seconds: float = 0.0
    problem: str = ""

    def markdown(self) -> str:
        if self.problem:
            return f"| {self.title} | not run: {self.problem} | | | | | | |"
        cold = f"{self.upstream:,} | {self.received:,} | {1e3 * self.seconds:.0f}"
        warm = f"{self.again:,} | {self.again_received:,} | {1e3 * self.again_seconds:.0f}"
        return f"| {self.title} | {self.version} | {cold} | {warm} |"


HEAD = """\
| client | version | publisher → subscriber | subscriber → client | ms | again: publisher → subscriber \
| subscriber → client | ms |
|---|---|---|---|---|---|---|---|"""


class NotRun(Exception):
    """A client cannot be measured; the text says why."""


def interpreter(reader: readers.Reader) -> str:
    if not reader.released:
        return sys.executable
    try:
        return str(python_with(RELEASED, ROOT / "build" / "environments" / "released_client"))
    except Unsupported as error:
        raise NotRun(str(error)) from error


def read(python: str, name: str, url: str, expected: float) -> dict[str, float | str]:
    """Let a client read once, in a process of its own."""
    scratch = tempfile.mkdtemp()
    try:
        command = [python, readers.__file__, name, url, scratch]
        released = readers.READERS[name].released
        environment = {"PATH": "/usr/bin:/bin"} if released else None  # it is not to find our package
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(scratch)
    if done.returncode:
        raise NotRun((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:150])
    found = json.loads(done.stdout.splitlines()[-1])
    if abs(found["sum"] - expected) > 1e-6 * abs(expected):
        raise NotRun(f"it read something else: {found['sum']} in place of {expected}")
    return found


def measure(name: str, three: Three, datasets: int, network: Network, expected: float) -> Row:
    """Let a client read twice through a new subscriber."""
    reader = readers.READERS[name]
    subscriber = three.subscriber(f"subscriber-{name}")
    try:
        python = interpreter(reader)
        three.wait_ready(subscriber, datasets)
        link = network.link(urlsplit(subscriber.url("subscriber")).port or 0)
        counts = [(0, 0)]
        found = []
        begun = three.metrics("subscriber", subscriber)["upstream_bytes_total"]
        for _ in range(2):
            found.append(read(python, name, f"http://127.0.0.1:{link.port}", expected))
            moved = three.metrics("subscriber", subscriber)["upstream_bytes_total"] - begun
            counts.append((int(moved), link.received_bytes))
    except NotRun as error:
        return Row(reader.title, problem=str(error))
    finally:
        subscriber.stop()
    (_, _), cold, warm = counts
    version = f"{reader.modules[0]} {found[0]['version']}" if reader.modules else ""
    return Row(
        reader.title,
        version,
        *cold,
        float(found[0]["seconds"]),
        warm[0] - cold[0],
        warm[1] - cold[1],
        float(found[1]["seconds"]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "clients", nargs="*", metavar="CLIENT", help=f"{', '.join(readers.READERS)}; all by default"
    )
    given = parser.parse_args()
    if unknown := set(given.clients) - set(readers.READERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    data, expected = write(HOME / "data", readers.KEY)
    datasets = sum(file.is_file() for file in data.rglob("*"))
    directory = Path(tempfile.mkdtemp(prefix="caterva2-clients-"))
    site = Site(directory)
    rows = []
    print(HEAD)
    try:
        three = Three(site, data)
        three.publisher()
        with Network() as network:
            for name in given.clients or readers.READERS:
                rows.append(measure(name, three, datasets, network, expected).markdown())
                print(rows[-1], flush=True)
    finally:
        site.close()
        shutil.rmtree(directory, ignore_errors=True)
    (HOME / "clients.md").write_text("\n".join([HEAD, *rows]) + "\n")


if __name__ == "__main__":
    main()
