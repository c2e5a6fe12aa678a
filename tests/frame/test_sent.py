"""Records: what they are made of, and what is refused. That they decode right is tested by `test_decode`."""

from __future__ import annotations

import blosc2
import numpy as np
import pytest

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.chunk import parse_chunk_header
from caterva2.frame.geometry import grid_of
from caterva2.frame.sent import decode_record
from caterva2.model import grid as module
from caterva2.model.extents import ChunkKind

TRUTH = np.random.default_rng(6).integers(0, 1 << 30, (600, 700)).astype("i4")
NO_SCRATCH = np.empty(0, np.uint8)


@pytest.fixture
def stored(store):
    return store(blosc2.asarray(TRUTH, chunks=(300, 700), blocks=(30, 70)))


def test_a_whole_chunk_is_sent_as_it_is_stored(stored) -> None:
    page = stored.pages()[0]
    for cell, data in stored.sent.records(()):
        assert page.kind(cell.nchunk) == ChunkKind.BLOCKS
        assert data == stored.source.pread(int(page.offsets[cell.nchunk]), int(page.sizes[cell.nchunk]))


def test_only_the_blocks_that_are_wanted_are_sent(stored) -> None:
    ((cell, data),) = stored.sent.records((299, slice(600, 700)))
    assert len(cell.blocks) == 2
    assert parse_chunk_header(data).nbytes == 2 * 30 * 70 * 4


def test_a_run_has_a_header_only(store) -> None:
    zeros = store(blosc2.zeros((50, 60), dtype="f8", chunks=(20, 30), blocks=(7, 11)))
    assert all(len(data) == 32 for _, data in zeros.sent.records(()))


def test_large_cells_are_cut(stored, monkeypatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 3 * 30 * 70 * 4)
    assert all(len(cell.blocks) <= 3 for cell, _ in stored.sent.records(()))
    assert np.array_equal(stored.sent[5:400, ::3], TRUTH[5:400, ::3])


def test_blocks_that_lie_in_the_result_as_they_are_stored_are_decoded_there(store) -> None:
    truth = np.arange(10_000, dtype="i8")
    line = store(blosc2.asarray(truth, chunks=(4096,), blocks=(512,)))
    rows = store(blosc2.asarray(truth.reshape(100, 100), chunks=(50, 100), blocks=(5, 100)))
    for key in ((), slice(512, 1024), slice(3, 5000), slice(0, 4096, 2)):
        assert np.array_equal(line.sent[key], truth[key])
        assert np.array_equal(rows.sent[key], truth.reshape(100, 100)[key])


@pytest.mark.parametrize(
    ("at", "change"),
    [(4, b"\x01"), (8, b"\xff"), (12, b"\x00"), (3, b"\x00"), (31, b"\x50"), (31, b"\x81")],
)
def test_a_record_that_is_not_as_expected_is_refused(stored, at, change) -> None:
    ((cell, data),) = stored.sent.records((5, slice(0, 50)))
    broken = bytearray(data)
    broken[at : at + 1] = change
    out = np.zeros((1, 50), "i4")
    with pytest.raises((Corrupt, Unsupported)):
        decode_record(memoryview(broken), grid_of(stored.head), cell, out, NO_SCRATCH)
    assert not out.any()


@pytest.mark.parametrize("size", [0, 10, 16, 31, 33, 1000])
def test_a_record_that_is_cut_is_refused(stored, size) -> None:
    ((cell, data),) = stored.sent.records((5, slice(0, 50)))
    with pytest.raises(Corrupt):
        decode_record(
            memoryview(data)[:size], grid_of(stored.head), cell, np.zeros((1, 50), "i4"), NO_SCRATCH
        )


def test_a_record_of_other_blocks_is_refused(stored) -> None:
    """Or it would write more than there is room for."""
    ((cell, _),) = stored.sent.records((5, slice(0, 50)))
    ((_, two),) = stored.sent.records((5, slice(0, 100)))
    with pytest.raises(Corrupt, match="not one of"):
        decode_record(memoryview(two), grid_of(stored.head), cell, np.zeros((1, 50), "i4"), NO_SCRATCH)


def test_no_flipped_bit_crashes(stored) -> None:
    """Digests are checked before; whatever comes, it is an error or a wrong number, not a wild write."""
    ((cell, data),) = stored.sent.records((slice(0, 30), slice(0, 70)))
    rng = np.random.default_rng(7)
    for at in rng.integers(0, 200, 300):
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        out = np.zeros((30, 70), "i4")
        try:
            decode_record(memoryview(broken), grid_of(stored.head), cell, out, NO_SCRATCH)
        except (Corrupt, Unsupported):
            continue
