from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from caterva2.cache.cached import CachedSource
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.subscriber import deletions
from caterva2.testing.contracts import read_all
from caterva2.testing.origin import MemoryOrigin
from caterva2.testing.waiting import until

A, B = DatasetPath("foo", "a"), DatasetPath("foo", "b")


@pytest.fixture
async def site(tmp_path, monkeypatch):
    """A catalogue of two datasets, a cache that has both, and what is published."""
    monkeypatch.setattr(deletions, "GRACE_S", 0.05)
    monkeypatch.setattr(deletions, "LOOK_S", 0.01)
    origin, catalogue = MemoryOrigin({A: b"a" * 1000, B: b"b" * 1000}), Catalogue()
    catalogue.set_root("foo")
    with ThreadPoolExecutor(2) as executor:
        cache = CachedSource(
            tmp_path, current=catalogue.entry, origin=lambda _: origin, quota_bytes=None, executor=executor
        )
        await cache.open()
        for path in (A, B):
            catalogue.apply("foo", path.name, origin.entry(path))
            await read_all(cache, path)
        yield catalogue, cache, origin
        await cache.close()


@pytest.fixture
async def dropping(site):
    catalogue, cache, _ = site
    task = asyncio.create_task(deletions.drop_deleted(catalogue, cache))
    await asyncio.sleep(0)
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def cached(cache):
    return {state.path for state in cache.states()}


async def test_what_is_deleted_goes_after_a_while(site, dropping):
    catalogue, cache, _ = site
    catalogue.confirm("foo")
    catalogue.apply("foo", "a", None)
    assert cached(cache) == {A, B}
    await until(lambda: cached(cache) == {B})


async def test_what_comes_back_is_taken_over(site, dropping):
    catalogue, cache, origin = site
    catalogue.confirm("foo")
    catalogue.apply("foo", "a", None)
    origin.publish(A, b"a" * 1000)
    catalogue.apply("foo", "a", origin.entry(A))
    catalogue.apply("foo", "b", None)
    await until(lambda: cached(cache) == {A})
    reads = origin.calls["read"]
    assert await read_all(cache, A) == b"a" * 1000
    assert (origin.calls["read"], cache.stats.taken_over) == (reads, 1)


async def test_nothing_goes_while_it_is_not_known_for_sure(site, dropping):
    catalogue, cache, _ = site
    catalogue.apply("foo", "a", None)
    catalogue.set_root("bar")
    catalogue.confirm("bar")
    await asyncio.sleep(0.2)  # many times the grace
    assert cached(cache) == {A, B}
    catalogue.confirm("foo")
    await until(lambda: cached(cache) == {B})


async def test_what_was_deleted_while_nobody_looked(site):
    catalogue, cache, _ = site
    catalogue.apply("foo", "a", None)
    catalogue.confirm("foo")
    task = asyncio.create_task(deletions.drop_deleted(catalogue, cache))
    await until(lambda: cached(cache) == {B})
    task.cancel()


async def test_a_root_that_is_gone(site, dropping):
    catalogue, cache, _ = site
    catalogue.remove_root("foo")
    await until(lambda: not cached(cache))


async def test_a_root_that_was_never_seen_says_nothing(site):
    """As after the catalogue was lost: what is here is kept until its space is needed."""
    _, cache, _ = site
    task = asyncio.create_task(deletions.drop_deleted(Catalogue(), cache))
    await asyncio.sleep(0.2)
    assert cached(cache) == {A, B}
    task.cancel()
