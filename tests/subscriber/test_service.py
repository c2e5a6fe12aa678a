"""A subscriber among real services: what it asks for, what it keeps, what it knows after a restart."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from caterva2.errors import StateInUse
from caterva2.frame.write import write_array
from caterva2.subscriber import deletions
from caterva2.subscriber.service import SubscriberService
from caterva2.testing.cluster import Cluster
from caterva2.testing.samples import write_example
from caterva2.testing.waiting import until

LARGE = np.random.default_rng(1).random((40, 128, 128))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_example(tmp_path / "root")
    write_array(tmp_path / "root" / "large.b2nd", LARGE, chunks=(20, 128, 128), blocks=(5, 32, 32))
    (tmp_path / "root" / "text é.bin").write_bytes(bytes(range(256)) * 4000)
    return tmp_path / "root"


class Client:
    def __init__(self, session: aiohttp.ClientSession, cluster: Cluster) -> None:
        self._session, self._cluster = session, cluster

    async def request(self, target: str, method: str = "GET", **options: Any) -> tuple[int, Any, bytes]:
        url = self._cluster.subscriber.address.url + target
        async with self._session.request(method, url, **options) as response:
            return response.status, response.headers, await response.read()

    async def json(self, target: str, method: str = "GET") -> Any:
        status, _, body = await self.request(target, method)
        assert status == 200, body
        return json.loads(body)

    async def array(self, path: str, slice_: str = "") -> np.ndarray:
        accept = {"Accept": "application/x-npy"}
        status, _, body = await self.request(f"/api/fetch/{path}?slice_={slice_}", headers=accept)
        assert status == 200, body
        return np.load(io.BytesIO(body))

    @property
    def upstream(self) -> tuple[int, int]:
        stats = self._cluster.subscriber.origins.stats
        return stats.requests, stats.bytes


@asynccontextmanager
async def running(tmp_path: Path, root: Path) -> AsyncIterator[tuple[Cluster, Client]]:
    async with Cluster(tmp_path / "state", {"foo": root}) as cluster, aiohttp.ClientSession() as session:
        yield cluster, Client(session, cluster)


async def test_a_slice_moves_its_blocks_and_only_once(tmp_path, root) -> None:
    async with running(tmp_path, root) as (_, client):
        assert (await client.array("foo/large.b2nd", "7, 100, 3")) == LARGE[7, 100, 3]
        _, moved = client.upstream
        assert moved < 80_000, "a block takes 40 kB, a chunk 2.6 MB"
        info = await client.json("/api/info/foo/large.b2nd")
        assert 0 < info["cached_bytes"] < moved
        assert not info["complete"]
        asked = client.upstream
        assert np.array_equal(await client.array("foo/large.b2nd", "7, 100, 0:5"), LARGE[7, 100, :5])
        await client.json("/api/info/foo/large.b2nd")
        await client.json("/api/list/foo")
        await client.json("/api/catalogue/foo")
        await client.json("/api/roots")
        assert client.upstream == asked, "what is here and in sync asks nobody"


async def test_every_kind_of_read_gives_what_the_publisher_has(tmp_path, root) -> None:
    async with running(tmp_path, root) as (_, client):
        assert np.array_equal(await client.array("foo/large.b2nd", "::3, 5:90:7, -1"), LARGE[::3, 5:90:7, -1])
        for name in ("large.b2nd", "text%20%C3%A9.bin", "ds-hello.b2frame", "dir2/ds-4d.b2nd"):
            from urllib.parse import unquote

            stored = (root / unquote(name)).read_bytes()
            ranges = {"Range": f"bytes=3-9, {len(stored) - 7}-, 0-1"}
            status, _, body = await client.request(f"/data/foo/{name}", headers=ranges)
            assert status == 206
            assert stored[3:10] in body
            assert stored[-7:] in body
            assert (await client.request(f"/api/download/foo/{name}"))[2] == stored
        state = await client.json("/api/info/foo/large.b2nd")
        assert state["complete"]
        assert state["cached_bytes"] == state["size"]


async def test_following_keeps_metadata_here(tmp_path, root) -> None:
    async with running(tmp_path, root) as (cluster, client):
        assert await client.json("/api/followed") == {"patterns": [], "modes": {}, "datasets": []}
        assert await client.json("/api/follow/foo/dir1/*", "POST") == {
            "pattern": "foo/dir1/*",
            "datasets": 2,
            "mode": "cached",
        }
        assert (await client.request("/api/follow/bar", "POST"))[0] == 404
        assert (await client.request("/api/follow/foo/nothing", "POST"))[0] == 404
        assert (await client.request("/api/unfollow/foo", "POST"))[0] == 404
        rows = (await client.json("/api/followed"))["datasets"]
        assert [row["path"] for row in rows] == ["foo/dir1/ds-2d.b2nd", "foo/dir1/ds-3d.b2nd"]
        await until(lambda: client.upstream[0] >= 2)
        write_array(root / "dir1" / "ds-2d.b2nd", np.zeros((3, 3)))
        known = cluster.subscriber.catalogue.root("foo").entries
        await until(lambda: known["dir1/ds-2d.b2nd"].shape == (3, 3))
        await until(lambda: client.upstream[0] >= 3)
        before = client.upstream
        assert (await client.json("/api/info/foo/dir1/ds-2d.b2nd"))["shape"] == [3, 3]
        assert client.upstream == before
        assert await client.json("/api/unfollow/foo/dir1/*", "POST") == {
            "pattern": "foo/dir1/*",
            "datasets": 2,
        }


async def test_everything_known_survives_a_restart_without_the_others(tmp_path, root) -> None:
    async with running(tmp_path, root) as (cluster, client):
        await client.json("/api/follow/foo/ds-1d.b2nd", "POST")
        expected = await client.array("foo/large.b2nd", "3")
        listed = await client.json("/api/catalogue/foo")
        for name in ("publisher", "broker", "subscriber"):
            await cluster.stop(name)
        await cluster.start_subscriber()
        assert np.array_equal(await client.array("foo/large.b2nd", "3"), expected)
        assert await client.json("/api/catalogue/foo") == listed
        assert (await client.json("/api/followed"))["patterns"] == ["foo/ds-1d.b2nd"]
        _, headers, _ = await client.request("/data/foo/large.b2nd", "HEAD")
        assert headers["X-Caterva2-Freshness"] == "unverified"
        assert 0 <= int(headers["Age"]) < 60
        assert (await client.json("/api/roots"))["foo"]["state"] == "unknown"
        async with asyncio.timeout(2):
            status, headers, body = await client.request("/api/fetch/foo/large.b2nd?slice_=39")
        assert status == 503
        assert int(headers["Retry-After"]) >= 1
        assert json.loads(body)["type"] == "urn:caterva2:problem:unavailable"


async def test_a_deleted_dataset_is_gone_here_too(tmp_path, root, monkeypatch) -> None:
    monkeypatch.setattr(deletions, "GRACE_S", 0.0)
    async with running(tmp_path, root) as (cluster, client):
        await client.array("foo/large.b2nd", "0")
        (root / "large.b2nd").unlink()
        await until(lambda: "large.b2nd" not in cluster.subscriber.catalogue.root("foo").entries)
        assert (await client.request("/api/info/foo/large.b2nd"))[0] == 404
        await until(lambda: cluster.subscriber.source.stats.cached_bytes == 0)


async def test_dropping_frees_what_is_cached(tmp_path, root) -> None:
    async with running(tmp_path, root) as (cluster, client):
        await client.array("foo/large.b2nd", "0")
        cached = cluster.subscriber.source.stats.cached_bytes
        assert cached > 100_000
        freed = await client.json("/api/cache/foo/large.b2nd", "DELETE")
        assert freed == {"path": "foo/large.b2nd", "freed_bytes": cached, "datasets": 1}
        assert np.array_equal(await client.array("foo/large.b2nd", "0"), LARGE[0])


async def test_one_state_directory_one_subscriber(tmp_path, root) -> None:
    async with running(tmp_path, root) as (cluster, _):
        second = SubscriberService(cluster.subscriber.settings)
        with pytest.raises(StateInUse):
            await second.__aenter__()


async def test_counters_are_exported(tmp_path, root) -> None:
    async with running(tmp_path, root) as (_, client):
        await client.array("foo/large.b2nd", "0")
        await client.array("foo/large.b2nd", "0")
        text = (await client.request("/metrics"))[2].decode()
        for name in (
            "upstream_requests_total",
            "upstream_bytes_total",
            "cache_hits_total",
            "cache_misses_total",
            "cache_verified_total",
            "cache_rejected_total",
            "cache_evicted_total",
            "cache_cached_bytes",
            'datasets{root="foo"} 8.0',
            'events_total{kind="created"} 8.0',
            'requests_total{method="GET",route="/api/fetch/",status="200"} 2.0',
        ):
            assert f"caterva2_subscriber_{name}" in text, name


async def test_what_is_followed_stays_longer(tmp_path, root) -> None:
    for name in "abc":
        (root / f"{name}.bin").write_bytes(np.random.default_rng(ord(name)).bytes(1_000_000))
    async with running(tmp_path, root) as (cluster, client):
        settings = replace(cluster.subscriber.settings, quota_bytes=2_600_000)
        await cluster.stop("subscriber")
        async with SubscriberService(settings) as cluster.subscriber:
            await client.json("/api/follow/foo/a.bin", "POST")
            for name in "abc":
                await client.request(f"/api/download/foo/{name}.bin")
            complete = [(await client.json(f"/api/info/foo/{name}.bin"))["complete"] for name in "abc"]
            assert complete == [True, False, True]


async def test_only_if_cached_asks_nobody(tmp_path, root) -> None:
    only = {"Cache-Control": "max-age=0, Only-If-Cached"}
    async with running(tmp_path, root) as (cluster, client):
        target = "/data/foo/text%20%C3%A9.bin"
        for path in (target, "/api/manifest/foo/large.b2nd", "/api/info/foo/large.b2nd"):
            status, _, body = await client.request(path, headers=only)
            assert (status, json.loads(body)["type"]) == (504, "urn:caterva2:problem:not-cached")
        assert client.upstream == (0, 0)
        stored = (root / "text é.bin").read_bytes()
        await client.request(target, headers={"Range": "bytes=0-9"})
        asked = client.upstream
        for ranges, want in {"5-200000": 206, "5-9,20-30": 206, "5-9,262140-262150": 504, "-1": 504}.items():
            status, _, body = await client.request(target, headers=only | {"Range": f"bytes={ranges}"})
            assert status == want, ranges
            if ranges == "5-200000":
                assert body == stored[5:200001]
        assert (await client.request(target, headers=only))[0] == 504
        assert (await client.request(target, "HEAD", headers=only))[0] == 200
        assert client.upstream == asked
        async with aiohttp.ClientSession() as session:
            url = cluster.publisher.address.url + target
            async with session.get(url, headers=only) as answer:
                assert await answer.read() == stored, "a publisher has everything"
