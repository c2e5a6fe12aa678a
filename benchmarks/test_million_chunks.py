"""An array of a million chunks, 1 GB, that appears anew each time: seconds until it is known, then until its
first element is there.

The first includes the settle time, 0.05 s here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import caterva2
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.samples import write_many

COUNTS = (1000, 1000)
NAME = "million.b2nd"
ROUNDS = 3

pytestmark = pytest.mark.timeout(180)


class Replaced:
    """The array, of which there is another version each time."""

    def __init__(self, running: RunningCluster, root: Path, staging: Path) -> None:
        self.running = running
        self._entries = running.cluster.subscriber.catalogue.roots["foo"].entries
        self._target, self._staging = root / NAME, staging / NAME
        self._seeds = count()

    def write(self) -> None:
        """Write another version where nobody looks."""
        write_many(self._staging, COUNTS, seed=next(self._seeds))

    def appear(self) -> None:
        """Publish it, and wait until the subscriber knows."""
        before = self._entries.get(NAME)
        self._staging.replace(self._target)
        self.running.wait_for(lambda: self._entries.get(NAME) not in (before, None))


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replaced]:
    directory = tmp_path_factory.mktemp("million")
    root, staging = directory / "root", directory / "staging"
    root.mkdir()
    staging.mkdir()
    with running_cluster(Cluster(directory / "state", {"foo": root})) as running:
        yield Replaced(running, root, staging)
    (root / NAME).unlink()  # pytest keeps the directories of the last three runs


def test_announced(benchmark, million) -> None:
    benchmark.group = "a million chunks"
    benchmark.pedantic(million.appear, setup=million.write, rounds=ROUNDS)


def test_first_element(benchmark, million) -> None:
    def setup() -> None:
        million.write()
        million.appear()

    benchmark.group = "a million chunks"
    with caterva2.connect(million.running.url) as client:
        benchmark.pedantic(lambda: client[f"foo/{NAME}"][12345, 23456], setup=setup, rounds=ROUNDS)
