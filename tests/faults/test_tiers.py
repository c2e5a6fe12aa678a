"""Tiers under attack: links between groups are cut or hang, services are killed, a store is lost."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from caterva2.frame.write import write_array

from ..stacked import RAW, Stack, wait_for
from .conftest import noise

SHAPE = (48, 80, 100)
BUSY_S = 6.0
"""What a busy machine adds to what is promised."""

SOON_S = 2.0
"""Within this much all that is not cached is refused while a link is cut or hangs."""


@pytest.fixture
def array() -> np.ndarray:
    return noise(1)


@pytest.fixture
def root(tmp_path: Path, array: np.ndarray) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    for name in ("warm.b2nd", "cold.b2nd"):
        write_array(directory / name, array, chunks=(16, 40, 50), blocks=(4, 20, 50))
    return directory


@pytest.fixture
def stacked(tmp_path: Path, root: Path) -> Iterator[Callable[[int], Stack]]:
    with ExitStack() as stack:
        yield lambda depth: stack.enter_context(Stack(tmp_path, root, depth))


def with_leaf(groups: Stack) -> Stack:
    groups.start_leaf()
    groups.wait_current("leaf")
    return groups


def part(
    groups: Stack, name: str, dataset: str, plane: int
) -> tuple[int, np.ndarray, float, Mapping[str, str]]:
    """Read a plane; return status, elements, seconds and headers."""
    began = time.monotonic()
    answer = groups.get(name, f"/api/fetch/foo/{dataset}?slice_={plane}", Accept=RAW)
    took_s = time.monotonic() - began
    elements = np.frombuffer(answer.data, np.uint16) if answer.status == 200 else np.zeros(0)
    return answer.status, elements, took_s, answer.headers


def assert_warm(groups: Stack, array: np.ndarray, freshness: str) -> Mapping[str, str]:
    """Read what the leaf has: right, at once, and marked."""
    took = []
    for _ in range(20):
        status, elements, took_s, headers = part(groups, "leaf", "warm.b2nd", 3)
        assert status == 200
        np.testing.assert_array_equal(elements, array[3].ravel())
        assert headers["X-Caterva2-Freshness"] == freshness
        took.append(took_s)
    assert np.median(took) < 0.25, "nobody was waited for"
    return headers


def was_confirmed(state: Path) -> bool:
    """Whether a subscriber will know after a restart that it knew the root completely."""
    with closing(sqlite3.connect(state / "subscriber.sqlite")) as database:
        return database.execute("SELECT confirmed_at FROM roots").fetchall() not in ([], [(None,)])


def replace(root: Path, name: str, array: np.ndarray) -> None:
    write_array(root.parent / "new.b2nd", array.copy(), chunks=(16, 40, 50), blocks=(4, 20, 50))
    (root.parent / "new.b2nd").rename(root / name)


@pytest.mark.parametrize(("state", "where"), [("hung", 0), ("cut", 2)])
def test_offline_what_is_here_is_read_and_says_how_old_it_is(stacked, root, array, state, where) -> None:
    groups = with_leaf(stacked(3))
    part(groups, "leaf", "warm.b2nd", 3)
    groups.ways[where].set_state(state)
    cut_at = time.time()
    status, _, took_s, _ = part(groups, "leaf", "cold.b2nd", 3)
    assert status == 503
    assert took_s < SOON_S + BUSY_S
    wait_for(lambda: not groups.is_fresh("leaf"), 5 + BUSY_S, lambda: groups.info("leaf"))
    headers = assert_warm(groups, array, "unverified")
    assert int(headers["Age"]) <= time.time() - cut_at + BUSY_S

    # no less than since it was cut, since when nobody can know; as seen here at the last heartbeat before
    first = groups.info("leaf")
    wait_for(lambda: groups.info("leaf")["age_s"] > first["age_s"] + 2, 2 + BUSY_S, lambda: first)
    assert groups.info("leaf")["age_s"] >= time.time() - cut_at - 0.5
    assert groups.json("leaf", "/api/info/foo/warm.b2nd")["freshness"] == "unverified"
    assert groups.info("leaf")["state"] == "online" if where == 0 else "unknown"

    replace(root, "cold.b2nd", array[::-1])
    groups.ways[where].set_state("open")
    healed_at = time.monotonic()
    groups.wait_current("leaf")
    print(f"{state} at {where}: 503 in {took_s:.2f} s; healed in {time.monotonic() - healed_at:.2f} s")
    assert time.monotonic() - healed_at < 5 + BUSY_S
    assert_warm(groups, array, "fresh")
    np.testing.assert_array_equal(part(groups, "leaf", "cold.b2nd", 3)[1], array[::-1][3].ravel())


def test_a_tier_that_follows_keeps_everything_readable(stacked, root, array) -> None:
    groups = with_leaf(stacked(1))
    groups.post("tier 1", "/api/follow/foo?mode=full")

    def complete() -> bool:
        rows = groups.json("tier 1", "/api/followed")["datasets"]
        return len(rows) == 2 and all(row["complete"] for row in rows)

    wait_for(complete, 20, lambda: groups.json("tier 1", "/api/followed"))
    groups.ways[0].set_state("cut")
    for plane in range(48):
        np.testing.assert_array_equal(part(groups, "leaf", "cold.b2nd", plane)[1], array[plane].ravel())
    wait_for(lambda: not groups.is_fresh("leaf"), 5 + BUSY_S, lambda: groups.info("leaf"))


def test_cut_off_everything_below_can_be_started_again(stacked, root, array) -> None:
    """The tier, the broker below it and the subscriber are killed; they come back with what was there."""
    groups = with_leaf(stacked(1))
    known = groups.etags("leaf")
    part(groups, "leaf", "warm.b2nd", 3)
    wait_for(lambda: was_confirmed(groups.directory / "tier 1"), BUSY_S, lambda: "not written")
    groups.ways[0].set_state("cut")
    cut_at = time.time()
    for name in ("tier 1", "leaf", "broker 1"):
        groups.kill(name)
    shutil.rmtree(groups.directory / "leaf")
    shutil.rmtree(groups.directory / "broker 1" / "bus" / "store")  # and all that the bus knew
    for name in ("broker 1", "tier 1", "leaf"):
        groups.restart(name)
    wait_for(lambda: groups.etags("leaf") == known, 10 + BUSY_S, lambda: groups.info("leaf"))
    wait_for(lambda: groups.info("leaf")["age_s"] is not None, BUSY_S, lambda: groups.info("leaf"))
    assert groups.info("leaf")["state"] == "online"
    assert groups.info("leaf")["age_s"] >= time.time() - cut_at - 1.5
    assert_warm(groups, array, "unverified")  # the new one has it from the tier
    assert part(groups, "leaf", "cold.b2nd", 3)[0] == 503
    groups.ways[0].set_state("open")
    groups.wait_current("leaf")
    assert part(groups, "leaf", "cold.b2nd", 3)[0] == 200


def test_a_tier_that_is_killed_is_carried_on_where_it_was(stacked, root, array) -> None:
    groups = with_leaf(stacked(2))
    with ThreadPoolExecutor(4) as readers:
        reads = [readers.submit(part, groups, "leaf", "cold.b2nd", plane) for plane in range(0, 48, 4)]
        groups.kill("tier 1")
        groups.restart("tier 1")
        for plane, read in zip(range(0, 48, 4), reads, strict=True):
            status, elements, took_s, _ = read.result()
            assert status in (200, 503)
            assert took_s < SOON_S + BUSY_S
            if status == 200:
                np.testing.assert_array_equal(elements, array[plane].ravel())
    groups.wait_current("leaf")
    for plane in range(48):
        np.testing.assert_array_equal(part(groups, "leaf", "cold.b2nd", plane)[1], array[plane].ravel())


def test_a_bus_below_that_lost_everything_is_filled_again(stacked, root, array) -> None:
    groups = with_leaf(stacked(2))
    events = groups.json("leaf", "/health")
    assert events["status"] == "ok"
    groups.kill("broker 1")
    shutil.rmtree(groups.directory / "broker 1" / "bus" / "store")
    groups.restart("broker 1")
    replace(root, "warm.b2nd", array[::-1])
    groups.wait_current("leaf")
    np.testing.assert_array_equal(part(groups, "leaf", "warm.b2nd", 0)[1], array[-1].ravel())


def test_set_back_above_is_unverified_below_until_a_reset_runs_through_all_tiers(
    stacked, root, array
) -> None:
    groups = with_leaf(stacked(2))
    past = groups.directory / "past"
    set_aside(groups, past, root)
    replace(root, "warm.b2nd", array[::-1])
    groups.wait_current("leaf")
    later = groups.etags("leaf")
    part(groups, "leaf", "warm.b2nd", 3)

    set_back(groups, past, root)
    wait_for(lambda: groups.info("tier 1")["behind"] == 1, 20, lambda: groups.info("tier 1"))
    wait_for(lambda: not groups.is_fresh("leaf"), 20, lambda: groups.info("leaf"))
    assert (groups.etags("leaf"), groups.info("leaf")["behind"]) == (later, 0)
    np.testing.assert_array_equal(part(groups, "leaf", "warm.b2nd", 3)[1], array[::-1][3].ravel())

    groups.stop("publisher")
    groups.commands["publisher"].append("--reset")
    groups.restart("publisher")
    groups.wait_current("leaf")
    assert groups.info("leaf")["reset_at"] == groups.info("publisher")["reset_at"] is not None
    np.testing.assert_array_equal(part(groups, "leaf", "warm.b2nd", 3)[1], array[3].ravel())


def set_aside(groups: Stack, past: Path, root: Path) -> None:
    """Copy what publisher and broker have, and the directory."""
    for name in ("publisher", "broker 0"):
        groups.stop(name)
        shutil.copytree(groups.directory / name, past / name)
    shutil.copytree(root, past / "root")
    for name in ("broker 0", "publisher"):
        groups.restart(name)


def set_back(groups: Stack, past: Path, root: Path) -> None:
    """Put all that in the place of what is there now."""
    for name in ("publisher", "broker 0"):
        groups.stop(name)
        shutil.rmtree(groups.directory / name)
        shutil.copytree(past / name, groups.directory / name)
    for file in (past / "root").iterdir():
        shutil.copy2(file, root / file.name)
    for name in ("broker 0", "publisher"):
        groups.restart(name)


def test_another_publisher_of_the_root_is_passed_on(stacked, root, array) -> None:
    """The first is gone for good, its state too; the tiers go on with the second."""
    groups = with_leaf(stacked(2))
    part(groups, "leaf", "warm.b2nd", 3)
    groups.kill("publisher")
    shutil.rmtree(groups.directory / "publisher")
    replace(root, "cold.b2nd", array[::-1])
    groups.restart("publisher")
    groups.wait_current("leaf", 20 + BUSY_S)
    np.testing.assert_array_equal(part(groups, "leaf", "cold.b2nd", 0)[1], array[-1].ravel())


def test_a_tier_that_hangs_is_taken_over_by_the_other_which_fetches_nothing_again(
    stacked, root, array
) -> None:
    groups = stacked(1)
    groups.wait_republishes("tier 1")
    groups.start("tier b", 0, "subscriber", "--republish-to", groups.urls["broker 1"])
    groups.wait_refused("tier b", "belongs to another")
    with_leaf(groups)
    for plane in range(48):
        part(groups, "leaf", "warm.b2nd", plane)
    groups.services["tier 1"].signal(signal.SIGSTOP)
    hung_at = time.monotonic()
    groups.wait_republishes("tier b")
    wait_for(
        lambda: groups.info("leaf")["publisher"] == groups.urls["tier b"], 5, lambda: groups.info("leaf")
    )
    took_s = time.monotonic() - hung_at
    groups.wait_current("leaf")
    print(f"the other tier took over after {took_s:.1f} s")
    assert took_s < 8 + BUSY_S
    before = groups.ways[0].data.received_bytes
    assert_warm(groups, array, "fresh")
    assert groups.ways[0].data.received_bytes == before
    np.testing.assert_array_equal(part(groups, "leaf", "cold.b2nd", 3)[1], array[3].ravel())

    groups.services["tier 1"].signal(signal.SIGCONT)  # and is the one in waiting now
    groups.wait_refused("tier 1", "belongs to another")
    assert groups.info("leaf")["publisher"] == groups.urls["tier b"]
