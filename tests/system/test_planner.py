"""What goes over a slow link: slices in place of blocks, and nothing twice. Counted, not timed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.http.negotiation import BLOCKS_TYPE
from caterva2.testing.network import Network

from ..stacked import RAW, Stack, wait_for

SHAPE = (128, 256, 256)
DELAY_S = 0.02
"""There, and back: far enough for any machine to tell it from loopback."""

CUT = ["7", ":, 9", "3, 3, 3", "5:100:7, ::-3, 200:"]


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(11).integers(0, 1 << 12, SHAPE, np.int32)


@pytest.fixture
def groups(tmp_path: Path, array: np.ndarray) -> Iterator[Stack]:
    """A publisher, a tier at the other end of a slow link, and a group below it."""
    root = tmp_path / "root"
    root.mkdir()
    write_array(root / "x.b2nd", array, chunks=(64, 128, 256), blocks=(4, 64, 256))
    with Stack(tmp_path, root, 1, slices="auto") as groups:
        groups.wait_current("tier 1")
        yield groups


@pytest.fixture
def far(groups: Stack, tmp_path: Path) -> Iterator[Stack]:
    """The same, with a subscriber of the first group that has the slow link alone to its publisher."""
    with Network() as network:
        link = network.link(1, delay_s=DELAY_S)
        groups.slow = link
        link.target = int(groups.urls["publisher"].rpartition(":")[2])
        groups.commands["publisher"][groups.commands["publisher"].index("--url") + 1] = (
            f"http://127.0.0.1:{link.port}"
        )
        groups.stop("publisher")
        groups.restart("publisher")
        groups.start("far", 0, "subscriber")
        groups.wait_current("far")
        yield groups


def read(groups: Stack, name: str, array: np.ndarray, text: str) -> str:
    answer = groups.get(name, f"/api/fetch/foo/x.b2nd?slice_={text.replace(' ', '')}", Accept=RAW)
    assert answer.status == 200, answer.data
    expected = eval(f"array[{text or '...'}]")
    np.testing.assert_array_equal(
        np.frombuffer(answer.data, np.int32).reshape(json.loads(answer.headers["X-Caterva2-Shape"])), expected
    )
    return answer.headers["Server-Timing"]


def moved(groups: Stack) -> int:
    return groups.slow.received_bytes


@pytest.mark.parametrize("text", CUT)
def test_what_is_cut_crosses_the_link_as_a_slice_and_once(far, array, text) -> None:
    far.json("far", "/api/info/foo/x.b2nd")
    before = moved(far)
    assert read(far, "far", array, text).startswith('plan;desc="slice"')
    part = eval(f"array[{text}]")
    assert moved(far) - before < part.nbytes + 4096
    before = moved(far)
    assert read(far, "far", array, text) == "cache;desc=hit"
    assert moved(far) - before < 4096  # but a probe, perhaps


def test_blocks_are_sent_as_stored_once_they_are_here(far: Stack) -> None:
    def form() -> str:
        url = "/api/fetch/foo/x.b2nd?slice_=3,3,3"
        return far.get("far", url, Accept=f"{BLOCKS_TYPE}, application/x-npy;q=0.5").headers["Content-Type"]

    assert form() == "application/x-npy"  # of a slice
    assert far.get("far", "/api/download/foo/x.b2nd").status == 200
    assert form() == BLOCKS_TYPE
    assert form() == "application/x-npy"  # used again: decoded here, and kept


def test_what_is_read_again_comes_to_be_here(far, array) -> None:
    read(far, "far", array, "8, 8, 8")
    read(far, "far", array, "9, 9, 9")
    url = "/api/info/foo/x.b2nd"
    wait_for(lambda: far.json("far", url)["cached_bytes"] > 0, 20, lambda: far.log("far"))
    wait_for(
        lambda: read(far, "far", array, "10, 10, 10") == "cache;desc=hit", 20, lambda: far.json("far", url)
    )
    assert far.json("far", url)["cached_bytes"] < array.nbytes / 20


def test_a_tier_has_slices_made_for_those_below(far, array) -> None:
    """The second group's subscriber is near its tier; the tier is far from the publisher."""
    far.start_leaf("leaf")
    far.wait_current("leaf")
    before = moved(far)
    read(far, "leaf", array, "7")
    read(far, "leaf", array, ":, :, 100")
    assert 0 < moved(far) - before


def test_never_means_never(far, array) -> None:
    far.slices = "never"
    far.start("plain", 0, "subscriber")
    far.wait_current("plain")
    assert read(far, "plain", array, "7").startswith('plan;desc="blocks"')
    assert read(far, "plain", array, "7") == "cache;desc=hit"
    assert far.json("plain", "/api/info/foo/x.b2nd")["cached_bytes"] > 0
