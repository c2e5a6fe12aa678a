"""The API against its own description: whatever is sent, it is no server error."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster
from caterva2.testing.samples import write_example

EXAMPLES = 40

NAMES = [
    "dir1/ds-2d.b2nd",
    "records.b2nd",
    "scalar.b2nd",
    "ds-hello.b2frame",
    "empty",
    "broken.b2nd",
    "nothing",
]
PATHS = [f"foo/{name}" for name in NAMES]
SELECTIONS = ["", "0", "5, ::2", "-1", "::-1", "1:2:0", "...", "9:3", "60", "a", "1,2,3", "[0]", "0:1,,"]
INDICES = [
    "[0]",
    "[[0,1],[2,3]]",
    '[null,"1:3"]',
    "[[[0]],1]",
    "[-1]",
    "[[]]",
    "[1.5]",
    "{",
    "[true]",
    "[[99]]",
]


def with_known_values(description: dict[str, Any]) -> dict[str, Any]:
    """Let most examples reach the data: paths that exist, and selections that are nearly right."""
    known: dict[str, list] = {
        "path": PATHS,
        "pattern": ["foo", "foo/*", *PATHS],
        "slice_": SELECTIONS,
        "indices": INDICES,
        "field": ["a", "b", "z", ""],
    }
    known |= {"nchunk": [-1, 0, 5, 6], "pages": ["0", "0-1", "x"], "root": ["foo", "bar"]}
    for operations in description["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if values := known.get(parameter["name"]):
                    parameter["schema"] = {"anyOf": [{"enum": values}, parameter["schema"]]}
    return description


RECORDS = np.array([(1, 2.5), (3, -1.0)], dtype=[("a", "i4"), ("b", "f8")])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["broker", "publisher", "subscriber"])
async def test_nothing_that_is_sent_is_a_server_error(tmp_path, name) -> None:
    root = write_example(tmp_path / "root")
    write_array(root / "records.b2nd", RECORDS)
    write_array(root / "scalar.b2nd", np.float32(2.5))
    (root / "empty").touch()
    (root / "broken.b2nd").write_bytes(b"this is no frame")
    async with Cluster(tmp_path / "state", {"foo": root}) as cluster, aiohttp.ClientSession() as session:
        url = getattr(cluster, name).address.url
        async with session.get(f"{url}/openapi.json") as answer:
            description = await answer.json()
        (tmp_path / "openapi.json").write_text(json.dumps(with_known_values(description)))
        code, text = await fuzz(url, tmp_path)
        assert code == 0, text[-6000:]
        async with session.get(f"{url}/metrics") as answer:
            metrics = await answer.text()
    assert 'status="500"' not in metrics
    if name != "broker":
        assert 'route="/api/fetch/",status="200"' in metrics, "no example reached the data"


async def fuzz(url: str, directory: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", url, "--no-color"),
        *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--seed", "1"),
        *("--max-examples", str(EXAMPLES), "--request-timeout", "10"),
        *("--exclude-path", "/api/events"),  # a stream has no end
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()
