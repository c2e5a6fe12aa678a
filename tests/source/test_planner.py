import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2.frame.write import write_array
from caterva2.model.grid import ChunkGrid
from caterva2.model.path import DatasetPath
from caterva2.model.selection import parse_selection, select
from caterva2.source.planner import (
    Costs,
    Explanation,
    Missing,
    Way,
    blocks_touched,
    chunks_touched,
    estimate,
    everything,
    explained,
    explaining,
    level_for,
    part_bytes_of,
)
from caterva2.testing.origin import MemoryOrigin

WAN = Way(0.02, 12.5e6)
LAN = Way(0.0005, 500e6)
PATH = DatasetPath("foo", "a.b2nd")
GRID = ChunkGrid((100, 90, 70), (32, 30, 64), (8, 30, 7))


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    file = tmp_path_factory.mktemp("root") / "a.b2nd"
    noise = np.random.default_rng(5).integers(0, 1 << 20, (128, 256, 256), np.int32)
    write_array(file, noise, chunks=(64, 64, 128), blocks=(4, 64, 128))
    return MemoryOrigin({PATH: file.read_bytes()})._head(PATH)


def axes(length):
    bounds = st.tuples(st.integers(0, length), st.integers(0, length), st.integers(1, 3))
    return bounds.map(lambda b: slice(min(b[0], b[1]), max(b[0], b[1]), b[2])) | st.integers(0, length - 1)


@given(st.tuples(*map(axes, GRID.shape)))
def test_what_a_selection_touches_is_counted_without_looking(key):
    selection = select(key, GRID.shape)
    cells = list(GRID.cells(selection))
    assert chunks_touched(GRID, selection) == len(cells)
    blocks = sum(len(cell.blocks) for cell in cells)
    assert blocks <= blocks_touched(GRID, selection)
    if all(axis.step == 1 for axis in selection.axes):
        assert blocks == blocks_touched(GRID, selection)


@pytest.mark.parametrize(
    "text", ["3, 3, 3", "0:10, 0:10, 0:10", "7", ":, 7", ":, :, 7", "10:100, 10:200, 10:200"]
)
def test_far_away_a_slice_is_best_of_what_is_cut(head, text):
    selection = parse_selection(text, head.shape)
    costs = estimate(WAN, head, selection, everything(head, selection))
    assert costs.choice == "slice"
    assert costs.slice < costs.blocks


@pytest.mark.parametrize("text", ["3, 3, 3", "0:10, 0:10, 0:10", "0:64, 0:64, 0:128", ""])
def test_nearby_what_can_be_kept_is_best(head, text):
    selection = parse_selection(text, head.shape)
    assert estimate(LAN, head, selection, everything(head, selection)).choice == "blocks"


def test_what_is_wanted_whole_is_fetched_as_it_is_stored(head):
    selection = parse_selection("", head.shape)
    assert estimate(WAN, head, selection, everything(head, selection)).choice != "slice"


def test_what_is_nearly_all_here_is_completed(head):
    selection = parse_selection("7", head.shape)
    missing = Missing(1000, 1, 1, 2_000_000, 8, 0, 0)
    assert estimate(WAN, head, selection, missing).choice == "blocks"


def test_many_ranges_cost_more_than_the_chunks_that_they_are_of(head):
    selection = parse_selection("::2, ::2, ::2", head.shape)
    missing = Missing(8_000_000, 2000, 2000, 8_500_000, 16, 0, 0)
    costs = estimate(Way(0.001, 1e9), head, selection, missing)
    assert costs.chunks < costs.blocks


def test_a_slice_must_be_clearly_faster():
    assert Costs(blocks=0.1, chunks=0.2, slice=0.095).choice == "blocks"
    assert Costs(blocks=0.1, chunks=0.2, slice=0.08).choice == "slice"
    assert Costs(blocks=0.002, chunks=0.002, slice=0.001).choice == "blocks"


def test_the_slower_the_harder_it_is_compressed():
    levels = [level_for(rate, 100 << 20) for rate in (1e6, 30e6, 90e6, 1e9)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == 0
    assert level_for(1e6, 1000) < levels[0]


def test_parts_are_some_at_a_time_and_of_bounded_size():
    assert part_bytes_of(10) == part_bytes_of(1 << 20) == 512 * 1024
    assert part_bytes_of(1 << 30) == 2 << 20


class TestExplanation:
    def test_all_here(self):
        assert Explanation().server_timing() == "cache;desc=hit"
        assert Explanation([("blocks", Costs(0.1, 0.2, 0.3))]).server_timing() == "cache;desc=hit"

    def test_a_slice(self):
        found = Explanation([("slice", Costs(0.1, 0.2, 0.03))], 1234, 0.0291).server_timing()
        assert found == (
            'plan;desc="slice", estimate-blocks;dur=100.0, estimate-chunks;dur=200.0, '
            'estimate-slice;dur=30.0, upstream;dur=29.1;desc="1234 bytes", cache;desc=miss'
        )

    def test_what_was_not_planned_was_read_by_blocks(self):
        assert Explanation([], 10, 0.001).server_timing().startswith('plan;desc="blocks", upstream;dur=1.0')

    async def test_tasks_begun_inside_are_heard(self):
        async def work():
            explained().upstream_bytes += 5

        with explaining() as explanation:
            await asyncio.create_task(work())
        assert explanation.upstream_bytes == 5
        assert explained() is None
