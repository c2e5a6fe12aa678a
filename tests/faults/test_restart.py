"""A subscriber that was away: it reads what changed since, unless the past is another one by now."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caterva2.bus.snapshot import ask_snapshot
from caterva2.subscriber import service
from caterva2.testing.cluster import Cluster
from caterva2.testing.waiting import until

DATASETS = 20


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(DATASETS):
        (root / f"{number:02}").write_text("first")
    async with Cluster(tmp_path / "state", {"foo": root}) as cluster:
        yield cluster


async def change(cluster: Cluster, text: str) -> None:
    """Change, delete and create a dataset each, and wait until the bus has that."""
    root = cluster.roots["foo"]
    (root / "00").write_text(text)
    (root / "01").unlink(missing_ok=True)
    (root / f"new {text}").write_text(text)
    changed = (root / "00").stat().st_size

    def announced() -> bool:
        seen = cluster.broker.catalogue.roots.get("foo")
        if seen is None or not {"00", f"new {text}"} <= seen.entries.keys():
            return False
        return seen.entries["00"].size == changed and "01" not in seen.entries

    await until(announced)


def agrees(cluster: Cluster) -> bool:
    mine, theirs = cluster.publisher.catalogue.roots["foo"], cluster.subscriber.catalogue.roots.get("foo")
    return theirs is not None and theirs.fresh and theirs.entries == mine.entries


async def back(cluster: Cluster) -> tuple[int, int]:
    """Start the subscriber, wait until it agrees; return how often it read all, and how often it went on."""
    await cluster.start_subscriber()
    await until(lambda: agrees(cluster))
    data = cluster.subscriber.view.data
    return data.resyncs, data.resumes


async def test_it_reads_what_changed_while_it_was_away(cluster: Cluster) -> None:
    known = dict(cluster.subscriber.catalogue.roots["foo"].entries)
    await cluster.stop("subscriber")
    await change(cluster, "while away")
    assert await back(cluster) == (0, 1)
    entries = cluster.subscriber.catalogue.roots["foo"].entries
    assert entries["00"].generation > known["00"].generation
    assert "01" not in entries
    assert entries["02"] == known["02"]
    await change(cluster, "now")
    await until(lambda: agrees(cluster))


async def test_a_store_that_was_lost_meanwhile_is_read_anew(cluster: Cluster) -> None:
    await cluster.stop("subscriber")
    await cluster.stop("broker")
    shutil.rmtree(cluster.state / "broker" / "bus" / "store")
    await cluster.start_broker()
    await change(cluster, "another store")
    assert (await back(cluster))[0] >= 1


async def test_a_store_that_was_set_back_meanwhile_and_written_to(cluster: Cluster, tmp_path: Path) -> None:
    store = cluster.state / "broker" / "bus" / "store"
    await cluster.stop("broker")
    shutil.copytree(store, tmp_path / "earlier")
    await cluster.start_broker()
    await change(cluster, "forgotten")
    await until(lambda: agrees(cluster))
    await cluster.stop("subscriber")
    await cluster.stop("broker")
    shutil.rmtree(store)
    shutil.move(tmp_path / "earlier", store)
    await cluster.start_broker()
    for number in range(5):
        await change(cluster, f"after {number}")
    await back(cluster)


async def test_a_database_of_an_earlier_time_goes_on_from_there(cluster: Cluster, tmp_path: Path) -> None:
    database = cluster.state / "subscriber" / "subscriber.sqlite"
    await cluster.stop("subscriber")
    shutil.copy(database, tmp_path / "earlier")
    await change(cluster, "once")
    assert await back(cluster) == (0, 1)
    await cluster.stop("subscriber")
    await change(cluster, "twice")
    for file in database.parent.glob("subscriber.sqlite*"):
        file.unlink()
    shutil.move(tmp_path / "earlier", database)
    assert await back(cluster) == (0, 1)


async def test_a_database_that_lost_something_is_noticed_by_the_digest(cluster: Cluster) -> None:
    await cluster.stop("subscriber")
    database = sqlite3.connect(cluster.state / "subscriber" / "subscriber.sqlite")
    with database:
        database.execute("DELETE FROM entries WHERE name = '05'")
        database.execute("UPDATE entries SET etag = 'another' WHERE name = '06'")
    database.close()
    assert await back(cluster) == (1, 1)


async def test_what_is_not_in_the_catalogue_yet_is_read_again(cluster: Cluster) -> None:
    """Once the subscriber knows something to be missing, there is no position to go on from."""
    view = cluster.subscriber.view
    assert view.position is not None
    root = cluster.subscriber.catalogue.roots["foo"]
    root.behind["05"] = root.entries["05"]
    assert view.position is None
    root.behind.clear()
    assert view.position is not None


async def test_a_new_one_begins_with_what_the_broker_knows(cluster: Cluster) -> None:
    await cluster.stop("subscriber")
    shutil.rmtree(cluster.state / "subscriber")
    await until(lambda: cluster.broker.catalogue.roots["foo"].fresh)
    assert await back(cluster) == (0, 1)
    await change(cluster, "now")
    await until(lambda: agrees(cluster))
    await cluster.stop("subscriber")
    await change(cluster, "while away")
    assert await back(cluster) == (0, 1)


@pytest.mark.parametrize("what", ["none", "nonsense", "cut", "another"])
async def test_a_new_one_that_gets_nothing_right_reads_the_bus(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await cluster.stop("subscriber")
    shutil.rmtree(cluster.state / "subscriber")
    right = await ask_snapshot(cluster.broker.address.url, None)
    assert right is not None
    wrong = {
        "none": None,
        "nonsense": b"nonsense",
        "cut": right[: len(right) // 2],
        "another": right.replace(b'"05"', b'"never there"'),
    }

    async def ask(*_: object) -> bytes | None:
        return wrong[what]

    monkeypatch.setattr(service, "ask_snapshot", ask)
    resyncs, _ = await back(cluster)
    assert resyncs == 1
