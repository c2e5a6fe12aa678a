"""What the routes on the cache answer that the command line does not show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from caterva2.testing.cluster import Cluster
from caterva2.testing.waiting import until


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a [1].bin", "a 1.bin", "b.bin"):
        (root / name).write_bytes(name.encode() * 50_000)
    async with Cluster(tmp_path / "state", {"foo": root}) as cluster:
        yield cluster


@pytest.fixture
async def ask(cluster: Cluster) -> AsyncIterator[Any]:
    async with aiohttp.ClientSession() as session:

        async def ask(method: str, target: str) -> tuple[int, Any]:
            url = cluster.subscriber.address.url + target
            async with session.request(method, url) as answer:
                body = await answer.read()
                return answer.status, json.loads(body) if b"json" in answer.content_type.encode() else body

        for name in ("a%20%5B1%5D.bin", "a%201.bin", "b.bin"):
            assert (await ask("GET", f"/data/foo/{name}"))[0] == 200
        yield ask


def mirrors(cluster: Cluster) -> list[Path]:
    directory = cluster.state / "subscriber" / "cache" / "mirrors"
    return [file for file in directory.iterdir() if file.suffix == ".data"]


async def test_a_name_that_is_cached_is_no_glob(ask) -> None:
    status, answer = await ask("DELETE", "/api/cache/foo/a%20%5B1%5D.bin")
    assert (status, answer["datasets"]) == (200, 1)
    rows = (await ask("GET", "/api/cache"))[1]["rows"]
    assert [row["path"] for row in rows] == ["foo/a 1.bin", "foo/b.bin"]
    assert (await ask("DELETE", "/api/cache/foo"))[1]["datasets"] == 2
    assert (await ask("DELETE", "/api/cache/foo/b.bin"))[1] == {
        "path": "foo/b.bin",
        "freed_bytes": 0,
        "datasets": 0,
    }


async def test_pins_survive_a_restart(cluster, ask) -> None:
    assert (await ask("POST", "/api/pin/foo/b.bin")) == (200, {"pattern": "foo/b.bin", "datasets": 1})
    await cluster.stop("subscriber")
    await cluster.start_subscriber()
    assert (await ask("GET", "/api/pins")) == (200, {"patterns": ["foo/b.bin"]})
    rows = (await ask("GET", "/api/cache"))[1]["rows"]
    assert [row["path"] for row in rows if row["pinned"]] == ["foo/b.bin"]


async def test_what_is_wrong_is_dropped_while_the_publisher_is_away(cluster, ask) -> None:
    assert (await ask("POST", "/api/fsck"))[1]["sound"]
    for file in mirrors(cluster):
        with file.open("r+b") as mirror:
            mirror.write(b"wrong")
    address = cluster.publisher.address
    await cluster.stop("publisher")
    await until(lambda: cluster.subscriber.catalogue.root("foo").state == "offline")
    status, answer = await ask("POST", "/api/fsck/foo/b.bin")
    assert (status, answer["sound"]) == (200, False)
    assert (answer["total"]["wrong"], answer["total"]["repaired"], answer["total"]["dropped"]) == (1, 0, 1)
    await cluster.start_publisher(address)
    await until(lambda: cluster.subscriber.catalogue.root("foo").state == "online")
    _, answer = await ask("POST", "/api/fsck")
    assert (answer["total"]["wrong"], answer["total"]["repaired"], answer["total"]["dropped"]) == (2, 2, 0)
    assert (await ask("POST", "/api/fsck"))[1]["sound"]


async def test_readers_go_on_during_a_check(cluster, ask) -> None:
    wanted = (await ask("GET", "/data/foo/b.bin"))[1]
    for file in mirrors(cluster):
        with file.open("r+b") as mirror:
            mirror.write(b"wrong")
    checks = [ask("POST", "/api/fsck") for _ in range(3)]
    reads = [ask("GET", "/data/foo/b.bin") for _ in range(20)]
    answers = await asyncio.gather(*checks, *reads)
    # a check takes the word of nobody, so who reads behind it gets what was repaired
    assert answers[-1][0] == 200
    assert (await ask("GET", "/data/foo/b.bin"))[1] == wanted
    rows = (await ask("GET", "/api/cache/foo/b.bin"))[1]["rows"]
    assert rows[0]["cached_bytes"] == rows[0]["size"]
    assert (await ask("POST", "/api/fsck"))[1]["sound"]
