"""Blocks as stored, over any source: what is planned, and what is sent."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from caterva2.frame.geometry import geometry_of, grid_of
from caterva2.frame.sent import decode_record
from caterva2.model.manifest import Head
from caterva2.model.path import parse_path
from caterva2.model.selection import select
from caterva2.source import blocks as module
from caterva2.source.blocks import BlockReader, pays
from caterva2.source.budget import Budget
from caterva2.testing.memory import FileSource

RNG = np.random.default_rng(1)
TRUTH = np.cumsum(RNG.integers(-3, 4, (310, 230, 17)), axis=0).astype("i4")
PATH = parse_path("r/x.b2nd")


@pytest.fixture
def source_of(tmp_path) -> Callable[..., FileSource]:
    def source_of(array: blosc2.NDArray) -> FileSource:
        Path(tmp_path / "x.b2nd").write_bytes(array.to_cframe())
        return FileSource(tmp_path / "x.b2nd", PATH)

    return source_of


@pytest.fixture
def source(source_of) -> FileSource:
    return source_of(blosc2.asarray(TRUTH, chunks=(300, 80, 17), blocks=(40, 30, 5)))


def decoded(head: Head, selection: Any, body: bytes) -> np.ndarray:
    stream, grid = io.BytesIO(body), grid_of(head)
    out = np.empty(selection.counts, geometry_of(head).dtype)
    for cell in grid.pieces(selection, geometry_of(head).blocksize):
        (size,) = struct.unpack("<I", stream.read(4))
        decode_record(memoryview(stream.read(size)), grid, cell, out, np.empty(0, np.uint8))
    assert stream.read() == b""
    return out.reshape(selection.shape)


async def body_of(reader: BlockReader, head: Head, key: Any) -> bytes:
    plan = await reader.plan(head, select(key, head.shape))
    body = b"".join([piece async for piece in reader.pieces(plan)])
    assert len(body) == plan.nbytes
    return body


KEYS = [(), (5,), (slice(3, 300, 7), slice(50, 120)), (..., 3), (309, 229, 16), (slice(0, 300), slice(0, 80))]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("group_bytes", [1, 50_000, 1 << 30])
async def test_what_is_sent_is_what_was_stored(source, monkeypatch, key, group_bytes) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", group_bytes)
    monkeypatch.setattr(module, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(module, "STORED_PER_RESULT", 1 << 20)
    head = await source.head(PATH)
    reader = BlockReader(source, Budget(1 << 20))
    selection = select(key, head.shape)
    assert np.array_equal(decoded(head, selection, await body_of(reader, head, key)), TRUTH[key])
    plan = await reader.plan(head, selection)
    assert np.array_equal(decoded(head, selection, await reader.small(plan)), TRUTH[key])


def test_what_pays() -> None:
    assert pays(256 * 1024, 4)
    assert not pays(256 * 1024 + 1, 4)
    assert pays(8 << 20, 2 << 20)
    assert not pays(38 << 20, 2 << 20)


async def test_a_thin_plane_across_chunks_is_better_decoded_here(source, monkeypatch) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", 1000)
    head = await source.head(PATH)
    reader = BlockReader(source, Budget(1 << 20))
    assert await reader.plan(head, select((..., 3, 3), head.shape)) is None
    assert await reader.plan(head, select((), head.shape)) is not None


async def test_blocks_that_need_more_than_themselves_are_not_sent(source_of) -> None:
    delta = {"filters": [blosc2.Filter.DELTA], "filters_meta": [0]}
    for cparams in (delta, {"filters": [blosc2.Filter.NDCELL], "filters_meta": [4]}):
        field = np.arange(64.0**2).reshape(64, 64)
        source = source_of(blosc2.asarray(field, chunks=(32, 32), blocks=(16, 16), cparams=cparams))
        head = await source.head(PATH)
        assert await BlockReader(source, Budget(1)).plan(head, select((0, 0), head.shape)) is None


async def test_a_slice_of_very_many_chunks_is_not_planned(source_of) -> None:
    source = source_of(blosc2.zeros((3000, 40), chunks=(1, 40), blocks=(1, 40)))
    head = await source.head(PATH)
    reader = BlockReader(source, Budget(1))
    assert await reader.plan(head, select((), head.shape)) is None
    assert await reader.plan(head, select((slice(0, 1024),), head.shape)) is not None


async def test_a_small_answer_has_only_what_is_wanted_of_small_chunks(source_of) -> None:
    source = source_of(blosc2.asarray(TRUTH[:, :, 0], chunks=(100, 230), blocks=(10, 23)))
    head = await source.head(PATH)
    reader = BlockReader(source, Budget(1 << 20))
    plan = await reader.plan(head, select((5, 5), head.shape))
    body = await reader.small(plan)
    assert len(body) < plan.nbytes / 5
    assert decoded(head, select((5, 5), head.shape), body) == TRUTH[5, 5, 0]


async def test_only_what_is_sent_is_read(source, monkeypatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 100_000)
    head = await source.head(PATH)
    reader = BlockReader(source, Budget(1 << 20))
    plan = await reader.plan(head, select((), head.shape))
    assert source.bytes_read == 0
    pieces = reader.pieces(plan)
    await anext(pieces)
    await pieces.aclose()
    assert 0 < source.bytes_read < plan.nbytes / 2


async def test_memory_that_others_wait_for_is_given_back(source, monkeypatch) -> None:
    """A client that reads slowly gets all the same what it asked for: it is read again."""
    monkeypatch.setattr("caterva2.source.budget.SLOW_S", 0.0)
    monkeypatch.setattr(module, "PIECE_BYTES", 10_000)
    head = await source.head(PATH)
    budget = Budget(100_000)
    reader = BlockReader(source, budget)
    plan = await reader.plan(head, select((), head.shape))
    body = b""
    async for piece in reader.pieces(plan):
        body += piece
        if len(body) < 60_000:
            async with asyncio.timeout(10):
                (await budget.lease(50_000)).release()
    assert budget.stats.revoked >= 1
    assert budget.granted_bytes == 0
    assert np.array_equal(decoded(head, select((), head.shape), body), TRUTH)


async def test_a_chunk_that_is_not_what_its_manifest_says_is_not_sent(source, monkeypatch) -> None:
    head = await source.head(PATH)
    reader = BlockReader(source, Budget(1 << 20))
    plan = await reader.plan(head, select((slice(0, 41), 0, 0), head.shape))

    async def zeros(_head, extents):
        return [bytes(extent.size) for extent in extents]

    monkeypatch.setattr(source, "read", zeros)
    with pytest.raises(ValueError, match="header"):
        await reader.small(plan)
