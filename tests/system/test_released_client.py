"""The `Client` and the commands of the PyPI package ``caterva2``, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from caterva2.config import Token
from caterva2.errors import Unsupported
from caterva2.testing.cluster import Cluster, running_cluster
from caterva2.testing.environments import python_with

from ..docs import samples

HERE = Path(__file__).parent
HOME = HERE.parents[1] / "build" / "environments" / "released_client"
TOKEN = "correct-horse"

pytestmark = pytest.mark.timeout(600)  # installing takes a while, the first time


@pytest.fixture(scope="module")
def released() -> Path:
    """Return the interpreter of the environment."""
    try:
        return python_with(HERE / "released_client.txt", HOME)
    except Unsupported as error:
        if "TEST_RELEASED" in os.environ:  # as in .ci/run: then it has to be there
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return samples.write(tmp_path_factory.mktemp("root"), ["records.b2nd"])


def run(*command: str | Path) -> str:
    """Run a command of the environment, which is to know nothing of us, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


CHECKS = (HERE / "released_client.py").read_text(encoding="utf-8").count("\ndef check_")


@pytest.mark.parametrize("token", [None, TOKEN])
def test_its_client(released: Path, root: Path, tmp_path: Path, token: str | None) -> None:
    cluster = Cluster(tmp_path, {"foo": root}, token=Token(token) if token else None)
    with running_cluster(cluster) as running:
        said = run(released, HERE / "released_client.py", running.url, *([token] if token else []))
    assert len(said.splitlines()) == CHECKS >= 12, said


def test_its_command_line(released: Path, root: Path, tmp_path: Path) -> None:
    with running_cluster(Cluster(tmp_path / "state", {"foo": root}, token=Token(TOKEN))) as running:
        login = ["--url", running.url, "--username", "anybody", "--password", TOKEN]

        def ask(*arguments: str) -> str:
            return run(released, "-m", "caterva2.clients.cli", *login, *arguments)

        assert ask("roots") == "foo\n"
        assert "dir1/ds-2d.b2nd" in ask("list", "foo").splitlines()
        assert "└── records.b2nd" in ask("tree", "foo")
        assert "shape : [10, 20]" in ask("info", "foo/dir1/ds-2d.b2nd")
        assert json.loads(ask("show", "foo/dir1/ds-2d.b2nd[1, 3:6]", "--json")) == [23, 24, 25]
        assert ask("url", "foo/ds-1d.b2nd") == f"{running.url}/api/download/foo/ds-1d.b2nd\n"
        ask("download", "foo/README.md", str(tmp_path / "text"))
        assert (tmp_path / "text").read_bytes() == (root / "README.md").read_bytes()
        assert "there is no dataset" in ask("info", "foo/nothing.b2nd")
