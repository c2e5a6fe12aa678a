"""Groups one below the other: a subscriber of one is a publisher in the next, and each byte moves once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import urllib3

from caterva2.frame.write import write_array

from ..stacked import Stack, wait_for

SHAPE = (64, 80, 100)


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 1 << 31, SHAPE, np.int32)


@pytest.fixture
def root(tmp_path: Path, array: np.ndarray) -> Path:
    directory = tmp_path / "root"
    (directory / "dir").mkdir(parents=True)
    write_array(directory / "x.b2nd", array, chunks=(16, 40, 50), blocks=(4, 20, 50))
    (directory / "dir/plain.bin").write_bytes(np.random.default_rng(8).bytes(1_500_011))
    return directory


@pytest.fixture
def stacked(tmp_path: Path, root: Path) -> Iterator[Callable[..., Stack]]:
    with ExitStack() as stack:
        yield lambda depth, **options: stack.enter_context(Stack(tmp_path, root, depth, **options))


def test_three_deep_each_byte_crosses_each_link_once(stacked, array, root) -> None:
    groups = stacked(3)
    for number in range(4):
        groups.start_leaf(f"leaf {number}")
    for number in range(4):
        groups.wait_current(f"leaf {number}")
        assert groups.info(f"leaf {number}")["tiers"] == 3
    before = [way.data.received_bytes for way in groups.ways]

    def read(number: int) -> None:
        got = groups.get(f"leaf {number % 4}", "/api/fetch/foo/x.b2nd", Accept="application/vnd.caterva2.raw")
        np.testing.assert_array_equal(np.frombuffer(got.data, np.int32).reshape(SHAPE), array)
        got = groups.get(f"leaf {number % 4}", "/api/download/foo/dir/plain.bin")
        assert got.data == (root / "dir/plain.bin").read_bytes()

    with ThreadPoolExecutor(8) as readers:
        list(readers.map(read, range(8)))
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    crossed = [way.data.received_bytes - was for way, was in zip(groups.ways, before, strict=True)]
    print(f"bytes over each link / size of the files: {[round(n / size, 4) for n in crossed]}")
    assert all(size <= n <= 1.05 * size for n in crossed)


def test_a_change_runs_through_all_tiers_at_once(stacked, root) -> None:
    groups = stacked(3)
    groups.start_leaf()
    groups.wait_current("leaf")
    took_ms: list[float] = []
    for number in range(20):
        (root / "changed").write_text(str(number))
        etag = groups.etags("leaf").get("foo/changed")
        wait_for(
            lambda old=etag: groups.etags("publisher").get("foo/changed") != old, 20, lambda: "publisher"
        )
        began = time.perf_counter()
        wait_for(lambda old=etag: groups.etags("leaf").get("foo/changed") != old, 20, lambda: "leaf")
        took_ms.append((time.perf_counter() - began) * 1000)
    print(f"through three tiers: median {np.median(took_ms):.1f} ms, longest {max(took_ms):.1f} ms")
    assert np.median(took_ms) < 500
    assert groups.is_fresh("leaf")


def test_two_brokers_that_republish_to_each_other(stacked, root) -> None:
    """The root stays that of its publisher, also when its broker loses everything while that is away."""
    groups = stacked(1)
    groups.start("back", 1, "subscriber", "--republish-to", groups.urls["broker 0"])
    groups.start_leaf()
    groups.wait_current("leaf")
    groups.wait_refused("back", "comes from there")
    assert groups.info("tier 1")["publisher"].endswith(str(groups.ways[0].data.port))

    groups.stop("publisher")
    groups.kill("broker 0")
    shutil.rmtree(groups.directory / "broker 0" / "bus" / "store")
    groups.restart("broker 0")  # where the root is free now, and comes back from below
    groups.wait_republishes("back")
    wait_for(lambda: groups.json("tier 1", "/health")["loops"] == ["foo"], 20, lambda: groups.log("tier 1"))
    assert groups.log("tier 1").count("is not followed") == 1
    assert groups.etags("tier 1") == groups.etags("leaf") != {}
    for name in ("tier 1", "leaf"):  # nobody takes it for confirmed, round and round
        wait_for(lambda name=name: not groups.is_fresh(name), 20, lambda name=name: groups.info(name))

    groups.restart("publisher")
    (root / "new").write_text("new")
    groups.wait_current("leaf")
    assert groups.json("tier 1", "/health")["loops"] == []
    groups.wait_refused("back", "comes from there")


def test_three_brokers_in_a_ring(stacked) -> None:
    groups = stacked(2)
    groups.start("back", 2, "subscriber", "--republish-to", groups.urls["broker 0"])
    groups.wait_refused("back", "comes from there")
    groups.start_leaf()
    groups.wait_current("leaf")
    # and into a group on the way, past its publisher
    groups.start("short", 2, "subscriber", "--republish-to", groups.urls["broker 1"])
    groups.wait_refused("short", "comes from there")
    assert groups.info("leaf")["tiers"] == 2


def test_another_address_of_the_same_broker_is_refused(stacked) -> None:
    groups = stacked(1)
    groups.start("same", 0, "subscriber", "--republish-to", groups.broker_above(1))
    groups.wait_refused("same", "--republish")


def test_roots_of_the_same_name_stay_apart(stacked, tmp_path) -> None:
    """The other group has a root of that name itself, from its own publisher."""
    groups = stacked(1)
    other = groups.start("other broker", 1, "broker")
    own = tmp_path / "ours"
    own.mkdir()
    (own / "own.txt").write_text("ours")
    groups.start("own", 1, "publisher", "foo", str(own), broker=other)
    groups.start("reader", 1, "subscriber", broker=other)
    wait_for(lambda: set(groups.etags("reader")) == {"foo/own.txt"}, 20, lambda: groups.info("reader"))
    groups.start("tier", 0, "subscriber", "--republish-to", other)
    groups.wait_refused("tier", "belongs to another publisher there")
    assert set(groups.etags("reader")) == {"foo/own.txt"}


def test_each_group_has_its_own_token(stacked, array) -> None:
    groups = stacked(2, tokens=["token-of-group-0", "token-of-group-1", "token-of-group-2"])
    groups.start_leaf()
    groups.wait_current("leaf")
    got = groups.get("leaf", "/api/fetch/foo/x.b2nd", Accept="application/vnd.caterva2.raw")
    np.testing.assert_array_equal(np.frombuffer(got.data, np.int32).reshape(SHAPE), array)
    asked = {}
    for number, token in enumerate(groups.tokens):
        for service in ("tier 1", "leaf"):
            headers = {"Authorization": f"Bearer {token}"}
            answer = urllib3.request("GET", f"{groups.urls[service]}/api/roots", headers=headers)
            asked[service, number] = answer.status
    assert [asked["tier 1", number] for number in range(3)] == [200, 200, 401]
    assert [asked["leaf", number] for number in range(3)] == [401, 401, 200]
    assert not any("token-of-group" in groups.log(name) for name in groups.urls)


def test_a_broker_is_not_republished_to_itself(site) -> None:
    done = site.run(
        "subscriber", "--broker", "http://127.0.0.1:8000", "--republish-to", "http://127.0.0.1:8000/", code=2
    )
    assert "use --republish alone" in done.stderr
