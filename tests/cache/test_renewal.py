from __future__ import annotations

import blosc2
import numpy as np
import pytest

from caterva2.cache.renewal import counterparts, renewed
from caterva2.model.extents import FIXED_SLOTS
from caterva2.model.path import parse_path
from caterva2.testing.contracts import all_extents
from caterva2.testing.origin import MemoryOrigin

PATH = parse_path("foo/a.b2nd")
NONE = -1


def stored(shape, chunks, blocks, seed=1):
    values = np.random.default_rng(seed).random(shape)
    return blosc2.asarray(values, chunks=chunks, blocks=blocks).to_cframe()


def published(data, path=PATH):
    return MemoryOrigin({path: data}).publish(path, data)


CASES = {
    "the same": ((60, 40), (60, 40), [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    "longer": ((60, 40), (100, 40), [0, 5], [0, 5]),
    "wider: other numbers": ((60, 40), (60, 50), [0, 1, 2, 3, 4, 5], [0, 1, 3, 4, 6, 7]),
    "narrower": ((60, 40), (60, 20), [0, 1, 2, 3, 4, 5], [0, NONE, 1, NONE, 2, NONE]),
    "shorter": ((60, 40), (25, 40), [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, NONE, NONE]),
    "empty": ((60, 40), (0, 40), [0, 1], [NONE, NONE]),
    "was empty": ((0, 40), (60, 40), [], []),
}


@pytest.mark.parametrize("case", CASES)
def test_chunks_are_found_by_their_place(case):
    before, after, nchunks, expected = CASES[case]
    earlier, head = (published(stored(shape, (20, 20), (10, 20))) for shape in (before, after))
    found = counterparts(earlier, head, np.array(nchunks, np.int64))
    assert found.tolist() == expected
    assert found.dtype == np.int64


def test_nothing_stands_for_what_is_cut_in_another_way():
    earlier = published(stored((60, 40), (20, 20), (10, 20)))
    for other in (stored((60, 40), (30, 20), (10, 20)), stored((60,), (20,), (10,)), b"no array"):
        path = PATH if other != b"no array" else parse_path("foo/a.bin")
        assert counterparts(earlier, published(other, path), np.arange(6)).tolist() == [NONE] * 6


def test_arrays_of_no_dimensions():
    one = published(blosc2.asarray(np.array(1.0)).to_cframe())
    assert counterparts(one, one, np.array([0])).tolist() == [0]


def test_files_and_frames_are_by_number():
    path = parse_path("foo/a.bin")
    long, short = published(bytes(10 << 18), path), published(bytes(3 << 18), path)
    assert counterparts(long, short, np.arange(10)).tolist() == [0, 1, 2] + [NONE] * 7


async def wanted(earlier_data, data, present):
    """The extents of a version that stand for those of an earlier one of which some are present."""
    origin = MemoryOrigin({PATH: earlier_data})
    earlier = await origin.head(PATH)
    numbers = sorted(e.number for e in await all_extents(origin, earlier) if present(e, earlier))
    head = origin.publish(PATH, data)
    groups = [group async for group in renewed(origin, head, earlier, np.array(numbers, np.int64))]
    return head, [extent.number for group in groups for extent in group], numbers


async def test_the_same_blocks_and_no_others():
    blocks = ((800, 400), (400, 400), (50, 200))  # chunks of 1.2 MB: their blocks are extents

    def some(extent, head):
        part = (extent.number - FIXED_SLOTS) % head.slots_per_chunk
        return extent.number < FIXED_SLOTS or part in (0, 3, 5)

    head, found, numbers = await wanted(stored(*blocks), stored(*blocks, seed=2), some)
    assert sorted(found) == numbers
    assert head.slots_per_chunk == 18


async def test_all_blocks_of_a_chunk_that_was_whole():
    """Zeros that became noise: small chunks, each one extent, have become large ones."""
    shape = ((800, 400), (400, 400), (50, 200))
    values = np.zeros(shape[0])
    values[0, 0] = values[400, 0] = 1
    small = blosc2.asarray(values, chunks=shape[1], blocks=shape[2]).to_cframe()
    head, found, _ = await wanted(small, stored(*shape), lambda e, head: e.number < FIXED_SLOTS + 18)
    first = [n for n in found if n >= FIXED_SLOTS]
    assert first and set((np.array(first) - FIXED_SLOTS) // head.slots_per_chunk) == {0}
    assert len(first) == 17


async def test_what_is_present_of_nothing_is_the_fixed_parts():
    data = stored((60, 40), (20, 20), (10, 20))
    head, found, _ = await wanted(data, data, lambda e, head: False)
    assert sorted(found) == sorted(e.number for e in head.fixed)
