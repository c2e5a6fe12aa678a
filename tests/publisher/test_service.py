"""The publisher as others see it: over HTTP and on the bus."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest

from caterva2.broker.service import BrokerService
from caterva2.config import Address, BrokerSettings, PublisherSettings
from caterva2.errors import Changed, ConfigError, StateInUse, Unavailable
from caterva2.frame.write import write_array
from caterva2.model.extents import digest
from caterva2.model.path import DatasetPath
from caterva2.publisher.service import PublisherService
from caterva2.source.http import HttpSource, UpstreamStats
from caterva2.testing.contracts import all_extents

NOWHERE = "http://127.0.0.1:1"
ANY_PORT = Address("127.0.0.1", 0)


@pytest.fixture
def publish(tmp_path):
    @asynccontextmanager
    async def run(roots, *, broker=NOWHERE, **options):
        settings = PublisherSettings(
            listen=ANY_PORT, state=tmp_path / "state", broker=broker, settle_s=0.05, **options
        )
        async with PublisherService(settings, roots) as publisher, asyncio.timeout(30):
            while not publisher.scanned:
                await asyncio.sleep(0.005)
            yield publisher

    return run


async def get(publisher, path, **headers):
    async with (
        aiohttp.ClientSession() as session,
        session.get(publisher.address.url + path, headers=headers) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


@pytest.mark.parametrize(
    ("roots", "words"),
    [
        ({}, "nothing to publish"),
        ({"foo": "none"}, "does not exist"),
        ({"foo": "file"}, "not a directory"),
        ({"a/b": "."}, "cannot name a root"),
    ],
)
def test_roots_that_cannot_be(tmp_path, roots, words) -> None:
    (tmp_path / "file").write_text("x")
    settings = PublisherSettings(listen=ANY_PORT, state=tmp_path / "state")
    with pytest.raises(ConfigError, match=words):
        PublisherService(settings, {name: tmp_path / directory for name, directory in roots.items()})


async def test_it_serves_without_a_broker(root, publish) -> None:
    write_array(root / "x.b2nd", np.arange(1000))
    (root / "ü b.txt").write_text("hello")
    async with publish({"foo": root}) as publisher:
        status, body, headers = await get(publisher, "/data/foo/%C3%BC%20b.txt")
        assert (status, body) == (200, b"hello")
        assert headers["X-Caterva2-Freshness"] == "fresh"
        status, body, _ = await get(publisher, "/data/foo/x.b2nd")
        assert body == (root / "x.b2nd").read_bytes()
        assert (await get(publisher, "/health"))[0] == 200
        status, body, _ = await get(publisher, "/metrics")
        for name in ("versions_taken", "versions_bytes_hashed", "source_changed", "source_pages_made"):
            assert f"caterva2_publisher_{name}_total".encode() in body
        assert b'caterva2_publisher_datasets{root="foo"} 2.0' in body


async def test_two_roots_may_overlap(root, publish) -> None:
    (root / "d").mkdir()
    (root / "d" / "x").write_text("one")
    async with publish({"all": root, "part": root / "d"}) as publisher:
        assert (await get(publisher, "/data/all/d/x"))[1] == b"one"
        assert (await get(publisher, "/data/part/x"))[1] == b"one"


async def test_nothing_outside_of_the_root_is_served(root, publish, tmp_path) -> None:
    (tmp_path / "secret").write_text("secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "d").symlink_to(tmp_path)
    (root / "x").write_text("x")
    async with publish({"foo": root}) as publisher:
        for path in ("out", "d/secret", "%2e%2e/secret", "..%2fsecret", "x%00", ".hidden", "state"):
            status, body, _ = await get(publisher, f"/data/foo/{path}")
            assert status in (400, 404), path
            assert body != b"secret"


async def test_a_link_put_in_the_place_of_a_directory_leads_nowhere(root, publish, tmp_path) -> None:
    """Not even between two scans."""
    (tmp_path / "outside").mkdir()
    (root / "d").mkdir()
    (root / "d" / "x").write_text("inside")
    os.link(root / "d" / "x", tmp_path / "outside" / "x")  # the same inode: only the way to it differs
    async with publish({"foo": root}) as publisher:
        assert (await get(publisher, "/data/foo/d/x"))[1] == b"inside"
        watcher = publisher.watchers["foo"]
        watcher._on_changes = lambda changes: None  # nobody hears of it
        (root / "d").rename(tmp_path / "away")
        (root / "d").symlink_to(tmp_path / "outside")
        status, _, _ = await get(publisher, "/data/foo/d/x")
        assert status in (404, 412)


async def test_one_state_directory_one_publisher(root, publish, tmp_path) -> None:
    async with publish({"foo": root}):
        second = PublisherService(
            PublisherSettings(listen=ANY_PORT, state=tmp_path / "state", broker=NOWHERE), {"foo": root}
        )
        with pytest.raises(StateInUse):
            await second.__aenter__()


async def test_a_request_that_meets_a_replacement_gets_the_next_version(root, publish) -> None:
    (root / "x").write_text("one")
    async with publish({"foo": root}) as publisher:
        etag = (await get(publisher, "/data/foo/x"))[2]["ETag"]
        (root / "x").write_text("other")
        status, body, headers = await get(publisher, "/data/foo/x")
        assert (status, body) == (200, b"other")
        assert headers["ETag"] != etag
        assert (await get(publisher, "/data/foo/x", **{"If-Match": etag}))[0] == 412


async def test_a_lost_directory_is_offline_and_unavailable(root, publish, wait_until) -> None:
    (root / "x").write_text("one")
    async with publish({"foo": root}) as publisher:
        root.rename(root.with_name("away"))
        await wait_until(lambda: publisher.catalogue.root("foo").state == "offline")
        status, _, headers = await get(publisher, "/data/foo/x")
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        assert (await get(publisher, "/api/info/foo/x"))[0] == 200
        assert b"degraded" in (await get(publisher, "/health"))[1]
        root.with_name("away").rename(root)
        await wait_until(lambda: publisher.catalogue.root("foo").state == "online")
        assert (await get(publisher, "/data/foo/x"))[1] == b"one"


async def test_it_is_announced_and_withdrawn(root, publish, tmp_path, wait_until) -> None:
    (root / "x").write_text("one")
    settings = BrokerSettings(listen=ANY_PORT, state=tmp_path / "broker")
    async with BrokerService(settings) as broker:
        seen = broker.catalogue.roots
        async with publish({"foo": root}, broker=broker.address.url) as publisher:
            mine = publisher.catalogue.root("foo")
            await wait_until(lambda: "foo" in seen and seen["foo"].entries == mine.entries)
            await wait_until(lambda: seen["foo"].state == "online")
            assert seen["foo"].url == publisher.address.url
            (root / "y").write_text("two")
            await wait_until(lambda: set(seen["foo"].entries) == {"x", "y"})
            root.rename(root.with_name("away"))
            await wait_until(lambda: seen["foo"].state == "offline")
            assert set(seen["foo"].entries) == {"x", "y"}
            root.with_name("away").rename(root)
            await wait_until(lambda: seen["foo"].state == "online")
        await wait_until(lambda: seen["foo"].state == "offline")
        assert set(seen["foo"].entries) == {"x", "y"}


async def test_readers_of_a_file_rewritten_in_a_loop_get_one_version_each(root, publish) -> None:
    """Over HTTP: the body of each answer is one version, and the extents match its manifest."""
    size, file = 600_000, root / "x.bin"
    file.write_bytes(b"\0" * size)
    stop = threading.Event()

    def write() -> None:
        value = 0
        while not stop.is_set():
            value = (value + 1) % 251
            data = bytes([value]) * size
            if value % 2:
                # Not emptied first: an empty file is a version too
                with file.open("r+b", buffering=0) as raw:
                    raw.write(data)
            else:
                (root / ".new").write_bytes(data)
                (root / ".new").replace(file)
            stop.wait(random.uniform(0.01, 0.25))

    whole, parts, changed = 0, 0, 0
    async with publish({"foo": root}) as publisher, aiohttp.ClientSession() as session:
        upstream = HttpSource(
            publisher.address.url,
            session,
            token=None,
            gap_bytes=0,
            requests=4,
            timeout_s=5.0,
            stats=UpstreamStats(),
        )
        writer = threading.Thread(target=write)
        writer.start()
        try:
            loop = asyncio.get_running_loop()
            until = loop.time() + 3
            while loop.time() < until:
                try:
                    async with session.get(f"{publisher.address.url}/data/foo/x.bin") as answer:
                        if answer.status == 200:
                            body = await answer.read()
                            # a writer that rests behind its truncation makes an empty version
                            assert len(body) in (0, size)
                            assert len(set(body)) <= 1, "bytes of two versions in one answer"
                            whole += 1
                        else:
                            assert answer.status == 412
                            changed += 1
                except aiohttp.ClientPayloadError:
                    changed += 1  # broken off in the middle: the reader knows
                parts += await read_by_extents(upstream)
        finally:
            stop.set()
            writer.join()
    assert whole > 5
    assert parts > 5


async def read_by_extents(upstream) -> int:
    try:
        head = await upstream.head(DatasetPath("foo", "x.bin"))
        extents = await all_extents(upstream, head)
        pieces = await upstream.read(head, extents)
    except (Changed, Unavailable):
        return 0
    assert [digest(piece) for piece in pieces] == [extent.digest for extent in extents]
    assert len(set(b"".join(pieces))) <= 1
    return 1
