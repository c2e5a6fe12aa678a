"""Many datasets and many views: nothing is lost, nothing stays behind (how fast: in ``benchmarks``)."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import caterva2
from caterva2.bus.catalogue import CatalogueView
from caterva2.bus.connection import Bus, ask_broker
from caterva2.model.catalogue import Catalogue
from caterva2.testing.cluster import Cluster
from caterva2.testing.samples import write_small
from caterva2.testing.waiting import until, wait_until

DATASETS = 5000
VIEWS = 50


def test_thousands_of_datasets_reach_a_new_subscriber_and_one_that_restarts(site) -> None:
    root = write_small(site.directory / "root", DATASETS)
    _, _, first = site.start_three(root)
    state = str(site.directory / "new")
    with caterva2.connect(first.url("subscriber")) as client:
        wait_until(lambda: _datasets(client) == DATASETS, 60)
        (root / "004" / "004999.b2nd").unlink()
        (root / "one more.txt").write_text("one more")
        wait_until(lambda: "one more.txt" in client["foo"] and "004/004999.b2nd" not in client["foo"])
    for _ in range(2):
        new = site.start("subscriber", "--listen", "127.0.0.1:0", "--state", state)
        with caterva2.connect(new.url("subscriber")) as client:
            wait_until(lambda: _datasets(client) == DATASETS, 60)
            wait_until(lambda: client.info("foo/one more.txt")["freshness"] == "fresh")
            for number in (0, 2500, 4998):
                array = client[f"foo/{number // 1000:03}/{number:06}.b2nd"]
                assert int.from_bytes(array[0].tobytes(), "little") == number
        new.stop()


def _datasets(client: caterva2.Client) -> int:
    return next((root.datasets for root in client.roots() if root.name == "foo"), 0)


async def test_many_views_see_a_change_and_leave_nothing_behind(tmp_path) -> None:
    root = write_small(tmp_path / "root", 10)
    async with Cluster(tmp_path / "state", {"foo": root}) as cluster:
        bus = cluster.broker.nats.pid
        open_before = _open_files(bus)
        seen = [Catalogue() for _ in range(VIEWS)]
        async with AsyncExitStack() as stack:
            for catalogue in seen:
                await _follow(stack, cluster.broker.address.url, catalogue)
            await until(lambda: all("foo" in c.roots and c.roots["foo"].fresh for c in seen), 60)
            (root / "new").write_text("new")
            await until(lambda: all("new" in c.roots["foo"].entries for c in seen), 60)
            digest = cluster.publisher.catalogue.root("foo").digest
            assert {c.roots["foo"].digest for c in seen} == {digest}
        await until(lambda: _open_files(bus) <= open_before, 20)


async def _follow(stack: AsyncExitStack, broker: str, catalogue: Catalogue) -> None:
    bus = await stack.enter_async_context(Bus(lambda: ask_broker(broker, None)))
    task = asyncio.create_task(CatalogueView(bus, catalogue).run())

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)


def _open_files(pid: int) -> int:
    """Return how many files and connections a process has open; 0 where that is not to be seen."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir())) if sys.platform == "linux" else 0
