"""An array of a million chunks costs what is read of it: all are counted, but none is hashed ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest

import caterva2
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.samples import write_many

COUNTS = (1000, 1000)
TILE = (4, 8)
"""Small chunks, of about 100 bytes: their number is what counts, and the file is 100 MB."""

MEGABYTE = 1_000_000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "root"
    root.mkdir()
    yield root
    for file in root.iterdir():
        file.unlink()  # pytest keeps the directories of the last three runs


@pytest.fixture
def running(tmp_path: Path, root: Path) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path / "state", {"foo": root})) as running:
        yield running


class Counted:
    """What a read through the subscriber took, all hosts in all."""

    def __init__(self, running: RunningCluster) -> None:
        self._upstream = running.cluster.subscriber.origins.stats
        self._publisher = running.cluster.publisher

    def __enter__(self) -> Counted:
        self._before = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        self.requests, self.moved, self.looked_at = np.subtract(self._now(), self._before).tolist()

    def _now(self) -> tuple[int, int, int]:
        source = self._publisher.source.stats
        return self._upstream.requests, self._upstream.bytes, source.bytes_hashed + source.bytes_read


def publish(running: RunningCluster, file: Path, seed: int) -> blosc2.NDArray:
    """Write the array, wait until the subscriber knows, and return the local one."""
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    known = entries.get(file.name)
    write_many(file, COUNTS, tile=TILE, seed=seed)
    running.wait_for(lambda: entries.get(file.name) not in (known, None))
    return blosc2.open(str(file))


def test_a_first_element_moves_less_than_a_megabyte(running, root) -> None:
    file = root / "million.b2nd"
    local = publish(running, file, seed=1)
    assert local.schunk.nchunks == 1_000_000
    assert running.cluster.publisher.version_stats.bytes_hashed == 0, "hashed to announce it"

    with caterva2.connect(running.url) as client:
        for place in ((0, 0), (2345, 4567)):
            with Counted(running) as took:
                assert client["foo/million.b2nd"][place] == local[place]
            assert took.moved < MEGABYTE
            assert took.looked_at < 4 * MEGABYTE, "a page of chunks, and the index at most"
            assert took.requests <= 3, "head, page, chunk"
        with Counted(running) as took:
            assert client["foo/million.b2nd"][place] == local[place]
            assert client.info("foo/million.b2nd")
        assert (took.requests, took.moved) == (0, 0)
        with Counted(running) as took:
            assert np.array_equal(client["foo/million.b2nd"][2000], local[2000])
        assert took.moved < MEGABYTE, "a row is a thousand chunks"

        local = publish(running, file, seed=2)
        with Counted(running) as took:
            assert client["foo/million.b2nd"][3999, 7999] == local[3999, 7999]
        assert took.moved < MEGABYTE
        assert took.looked_at < 4 * MEGABYTE
        assert took.requests <= 3
