"""A cluster on loopback with one array of about 300 MB, for all benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import blosc2
import pytest

import caterva2
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.samples import write_large


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large(tmp_path_factory.mktemp("root") / "waves.b2nd")


@pytest.fixture(scope="session")
def running(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": large.parent})) as running:
        yield running


@pytest.fixture(scope="session")
def remote(running: RunningCluster) -> Iterator[caterva2.Array]:
    with caterva2.connect(running.url) as client:
        yield client["foo/waves.b2nd"]


@pytest.fixture(scope="session")
def local(large: Path) -> blosc2.NDArray:
    return blosc2.open(str(large), mode="r")
