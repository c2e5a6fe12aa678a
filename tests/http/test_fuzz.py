"""The API against its own description: whatever is sent, it is no server error."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

EXAMPLES = 60

PATHS = ["foo/dir/a.b2nd", "foo/records.b2nd", "foo/scalar.b2nd", "foo/f.b2frame", "foo/empty", "foo/nothing"]
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
    known = {"path": PATHS, "slice_": SELECTIONS, "indices": INDICES, "field": ["a", "b", "z", ""]}
    known |= {"nchunk": [-1, 0, 5, 6], "pages": ["0", "0-1", "x"], "root": ["foo", "bar"]}
    for operations in description["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if values := known.get(parameter["name"]):
                    parameter["schema"] = {"anyOf": [{"enum": values}, parameter["schema"]]}
    return description


@pytest.mark.timeout(240)
async def test_nothing_that_is_sent_is_a_server_error(running, tmp_path) -> None:
    description = json.loads((await running.get("/openapi.json"))[2])
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(with_known_values(description)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", running.url, "--no-color"),
        *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--seed", "1"),
        *("--max-examples", str(EXAMPLES), "--request-timeout", "10"),
        *("--exclude-path", "/api/events"),  # a stream has no end
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text[-6000:]
    metrics = (await running.get("/metrics"))[2].decode()
    assert 'route="/api/fetch/",status="200"' in metrics, "no example reached the data"
