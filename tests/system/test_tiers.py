"""Groups one below the other: a subscriber of one is a publisher in the next, and each byte moves once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from caterva2.frame.write import write_array

from ..stacked import Stack

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
