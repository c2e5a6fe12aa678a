"""Directories with real files, and what watches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from caterva2.model.catalogue import Catalogue
from caterva2.publisher.directory import RootDirectory
from caterva2.publisher.store import PublisherStore
from caterva2.publisher.versions import VersionStats
from caterva2.publisher.watch import RootWatcher


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(tmp_path):
    store = PublisherStore(tmp_path / "publisher.sqlite")
    yield store
    store.close()


async def wait_until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait until a condition holds, for a bounded time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(name="wait_until")
def _wait_until():
    return wait_until


class Watched:
    """A watcher that runs, and what it fills."""

    def __init__(self, watcher: RootWatcher, catalogue: Catalogue, stats: VersionStats) -> None:
        self.watcher = watcher
        self.catalogue = catalogue
        self.versions = stats

    @property
    def entries(self):
        return self.catalogue.root("foo").entries

    async def have(self, *names: str) -> None:
        """Wait until exactly these datasets are announced."""
        await wait_until(lambda: set(self.entries) == set(names) and self.watcher.scanned)

    async def newer(self, name: str, generation: int) -> None:
        """Wait until a dataset has a later generation than one."""
        await wait_until(lambda: name in self.entries and self.entries[name].generation > generation)


@pytest.fixture
def watch(root, store):
    """Watch the root as long as the context lasts: ``async with watch() as watched``."""

    @asynccontextmanager
    async def run(*, settle_s=0.05, rescan_s=600.0, max_settle_s=30.0, directory=root, store=store):
        stats, catalogue = VersionStats(), Catalogue()
        catalogue.set_root("foo")
        with ThreadPoolExecutor(1) as executor:
            watcher = RootWatcher(
                RootDirectory("foo", str(directory), store, stats),
                catalogue,
                store,
                executor,
                settle_s=settle_s,
                rescan_s=rescan_s,
                max_settle_s=max_settle_s,
            )
            task = asyncio.create_task(watcher.run())
            try:
                yield Watched(watcher, catalogue, stats)
                assert not task.done(), task
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return run
