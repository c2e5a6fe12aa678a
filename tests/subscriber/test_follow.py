from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from caterva2.cache.cached import CachedSource
from caterva2.errors import ConfigError, InvalidPath, NotFound, Unavailable
from caterva2.model.catalogue import Catalogue
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.subscriber import follow
from caterva2.subscriber.follow import Follower
from caterva2.subscriber.store import SubscriberStore
from caterva2.testing.contracts import read_all
from caterva2.testing.origin import MemoryOrigin
from caterva2.testing.waiting import until

A, B = DatasetPath("foo", "a"), DatasetPath("foo", "dir/b")
DATA = bytes(range(256)) * (3 * PAGE // 256) + b"end"


class Site:
    """A publisher in memory, the catalogue of a subscriber, its cache and its follower."""

    def __init__(self, origin, catalogue, source, follower, store):
        self.origin, self.catalogue, self.source = origin, catalogue, source
        self.follower, self.store = follower, store
        self.down = False

    def publish(self, path, data):
        self.origin.publish(path, data)
        self.catalogue.apply("foo", path.name, self.origin.entry(path))

    def here(self, path):
        """How much is here of the current version, and whether its head is."""
        head = self.source._store.find(path, self.catalogue.entry(path).etag)
        return None if head is None else head.cached_bytes

    async def settle(self):
        """Wait until nothing is to be done."""
        follower = self.follower
        waiting = [queue._paths for queue in (follower._heads, follower._small, follower._large)]
        await until(lambda: not any(waiting) and not self.source.in_flight)
        await asyncio.sleep(0)


@pytest.fixture
def running(tmp_path):
    @asynccontextmanager
    async def running():
        origin = MemoryOrigin({A: DATA, B: DATA})
        catalogue = Catalogue()
        catalogue.set_root("foo")

        def origin_of(path):
            if site.down:
                raise Unavailable("gone")
            return origin

        with ThreadPoolExecutor(2) as executor:
            source = CachedSource(
                tmp_path / "cache",
                current=catalogue.entry,
                origin=origin_of,
                quota_bytes=None,
                executor=executor,
            )
            await source.open()
            store = SubscriberStore(tmp_path / "db")
            site = Site(origin, catalogue, source, Follower(catalogue, store, source), store)
            for path in (A, B):
                catalogue.apply("foo", path.name, origin.entry(path))
            catalogue.set_state("foo", "online")
            work = asyncio.create_task(site.follower.run())
            try:
                yield site
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                await source.close()
                store.close()

    return running


async def test_metadata_only(running):
    async with running() as site:
        assert site.follower.follow("foo", "meta") == 2
        await until(lambda: site.here(A) == site.here(B) == 0)
        await read_all(site.source, A)
        site.publish(A, DATA + b"!")
        await until(lambda: site.here(A) == 0)
        await site.settle()
        assert site.here(A) == 0
        assert site.origin.calls["pages"] == 1, "by the reader"


async def test_what_was_cached(running):
    async with running() as site:
        site.follower.follow("foo/a")
        await until(lambda: site.here(A) == 0)
        head = await site.source.head(A)
        (page,) = await site.source.pages(head, [0])
        await site.source.read(head, page.chunk_extents(1))
        site.publish(A, b"!" * (2 * PAGE))
        await until(lambda: site.here(A) == PAGE)
        await site.settle()
        assert site.here(A) == PAGE


async def test_all_of_it_now_and_later(running):
    async with running() as site:
        site.follower.follow("foo/dir", "full")
        await until(lambda: site.source.state(B).complete)
        assert site.here(A) is None
        site.publish(B, DATA + b"!" * PAGE)
        await until(lambda: site.source.state(B).complete)
        assert site.source.stats.taken_over == 3
        site.publish(DATASET := DatasetPath("foo", "dir/new"), b"new")
        await until(lambda: site.here(DATASET) == 3)


async def test_the_pattern_that_wants_most_counts(running):
    async with running() as site:
        site.follower.follow("foo", "meta")
        site.follower.follow("foo/a", "full")
        site.follower.follow("*", "cached")
        assert (site.follower.mode(A), site.follower.mode(B)) == ("full", "cached")
        assert site.follower.mode(DatasetPath("bar", "c")) == "cached"
        site.follower.unfollow("*")
        assert site.follower.mode(B) == "meta"
        assert not site.follower.follows(DatasetPath("bar", "c"))
        site.follower.follow("foo/a", "cached")
        assert site.follower.patterns == {"foo": "meta", "foo/a": "cached"}
        assert site.store.follows() == {"foo": "meta", "foo/a": "cached"}


async def test_what_cannot_be_had_is_tried_again(running, monkeypatch):
    monkeypatch.setattr(follow, "RETRY_S", 0.05)
    async with running() as site:
        site.down = True
        site.follower.follow("foo/a", "full")
        await site.settle()
        assert site.here(A) is None
        site.down = False  # and no event says so
        await until(lambda: site.here(A) is not None and site.source.state(A).complete)


async def test_what_is_of_a_root_that_went_waits_for_it(running, monkeypatch):
    monkeypatch.setattr(follow, "RETRY_S", 0.05)
    async with running() as site:
        site.down = True
        site.catalogue.set_state("foo", "offline")
        site.follower.follow("foo/a", "full")
        await site.settle()
        site.down = False
        site.catalogue.set_state("foo", "online")
        await until(lambda: site.here(A) is not None and site.source.state(A).complete)


async def test_small_changes_do_not_wait_for_large_ones(running, monkeypatch):
    monkeypatch.setattr(follow, "LARGE_BYTES", len(DATA) + 2)
    async with running() as site:
        site.follower.follow("foo", "full")
        await until(lambda: site.source.state(A).complete and site.source.state(B).complete)
        site.origin.gate.clear()
        reads = site.origin.calls["read"]
        for n in range(follow.REFRESHES + 1):
            site.publish(DatasetPath("foo", f"large{n}"), DATA + bytes([n]) * 10)
        await until(lambda: site.origin.calls["read"] >= reads + follow.REFRESHES)
        site.publish(A, DATA)  # all of it is here, under another version
        await until(lambda: site.here(A) is not None and site.source.state(A).complete)
        site.origin.gate.set()
        await until(lambda: site.source.state(DatasetPath("foo", "large2")).complete)


async def test_a_mirror_says_how_far_it_is(running, caplog):
    caplog.set_level(logging.INFO)
    async with running() as site:
        site.origin.gate.clear()
        site.follower.follow("foo", "full")
        await until(lambda: site.follower.behind == 2)
        site.origin.gate.set()
        await until(lambda: not site.follower.behind)
        await until(lambda: "all that is followed in full is here" in caplog.text)
        site.down = True
        site.publish(A, DATA + b"!")
        await until(lambda: site.follower.behind == 1)
        site.catalogue.apply("foo", "a", None)
        assert site.follower.behind == 0


async def test_what_is_followed_from_the_start_may_come_later(running):
    async with running() as site:
        site.follower.begin(["bar/**", "baz"], "full")
        assert site.follower.patterns == {"bar/**": "full", "baz": "full"}
        assert site.store.follows() == site.follower.patterns
        site.catalogue.set_root("bar")
        for path in (DatasetPath("bar", "x"), DatasetPath("bar", "dir/y")):
            site.origin.publish(path, DATA)
            site.catalogue.apply("bar", path.name, site.origin.entry(path))
        site.catalogue.set_state("bar", "online")
        await until(lambda: site.source.state(path).complete)
        with pytest.raises(ConfigError, match="/x"):
            site.follower.begin(["/x"], "full")


async def test_slips_of_the_pen(running):
    async with running() as site:
        for wrong, error in (("", InvalidPath), ("bar", NotFound), ("foo/nothing", NotFound)):
            with pytest.raises(error):
                site.follower.follow(wrong)
        with pytest.raises(NotFound, match="nothing"):
            site.follower.unfollow("foo")
