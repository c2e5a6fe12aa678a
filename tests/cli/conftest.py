"""One cluster for all tests of the command line, and `cat2` in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2.cli import main
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.samples import write_example

CUBE = np.arange(40 * 50 * 60, dtype=np.float64).reshape(40, 50, 60) / 7


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_example(tmp_path_factory.mktemp("root"))
    write_array(directory / "cube.b2nd", CUBE, chunks=(10, 25, 30), blocks=(5, 5, 10), attrs={"units": "K"})
    write_array(directory / "odd [1] é.b2nd", np.array([1 + 2j, np.nan]))
    (directory / "binary.bin").write_bytes(bytes(range(256)) * 20)
    (directory / "broken.b2nd").write_bytes(b"this is no frame")
    return directory


@pytest.fixture(scope="session")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": root})) as running:
        yield running


@pytest.fixture
def cat2(
    running: RunningCluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., Any]:
    """Run a command; return stdout (parsed with ``--json``), or stderr where a failure is expected."""
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", running.url)
    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> Any:
        result = main(arguments)
        out, err = capsys.readouterr()
        assert result == code, (out, err)
        if code:
            assert out == ""
            return err
        return json.loads(out) if "--json" in arguments else out

    return run
