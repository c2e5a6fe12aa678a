"""Answers as blocks: decoded in threads, checked before, and asked for in another form where that must be."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import blosc2
import numpy as np
import pytest

import caterva2.client.array as array_module
import caterva2.client.blocks as module
from caterva2.client import Array
from caterva2.client.blocks import BLOCKS, Decoders, Layout, read_blocks
from caterva2.errors import Caterva2Error, Unavailable, Unsupported
from caterva2.frame.write import write_array
from caterva2.model.grid import ChunkGrid
from caterva2.model.selection import select

TRUTH = np.cumsum(np.random.default_rng(3).integers(-3, 4, (300, 400)), axis=0)
GRID = ChunkGrid((300, 400), (100, 400), (10, 40))
LAYOUT = Layout(GRID, TRUTH.dtype)


class Stream(io.BytesIO):
    def read_exactly(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) != size:
            raise Unavailable("broken off")
        return data

    def read_into(self, target: memoryview) -> None:
        target[:] = self.read_exactly(len(target))


def records() -> list[bytes]:
    array = blosc2.asarray(TRUTH, chunks=GRID.chunks, blocks=GRID.blocks)
    return [array.schunk.get_chunk(n) for n in range(3)]


def body_of(chunks: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(chunk)) + chunk for chunk in chunks)


def read(body: bytes, decoders: Decoders, **options) -> np.ndarray:
    out = np.empty(TRUTH.shape, TRUTH.dtype)
    read_blocks(Stream(body), LAYOUT, select((), TRUTH.shape), out, decoders, **options)
    return out


@pytest.fixture
def decoders(monkeypatch):
    monkeypatch.setattr(module, "SHARE_BYTES", 1)
    decoders = Decoders()
    yield decoders
    decoders.close()


@pytest.mark.parametrize("alone", [True, False])
def test_records_are_decoded_into_the_result(decoders, alone) -> None:
    assert np.array_equal(read(body_of(records()), decoders, alone=alone), TRUTH)


def test_what_no_thread_has_begun_is_decoded_here(decoders) -> None:
    """As when the threads are busy with other reads of the same client."""
    free = threading.Event()
    busy = [decoders.executor().submit(free.wait, 20) for _ in range(decoders.threads)]
    try:
        assert np.array_equal(read(body_of(records()), decoders), TRUTH)
    finally:
        free.set()
    assert all(one.result() for one in busy)


def test_a_read_goes_on_that_is_under_way_when_its_client_is_closed(decoders, monkeypatch) -> None:
    closed = decoders.executor()
    closed.shutdown()
    monkeypatch.setattr(decoders, "executor", lambda: closed)
    assert np.array_equal(read(body_of(records()), decoders), TRUTH)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda body: body[:-1], Unavailable),
        (lambda body: body[:2], Unavailable),
        (lambda body: body + b"x", Caterva2Error),
        (lambda body: struct.pack("<I", 1 << 31) + body[4:], Caterva2Error),
        (lambda body: struct.pack("<I", 0) + body[4:], Caterva2Error),
        (lambda body: body[:8] + b"\x01" + body[9:], Caterva2Error),
        (lambda body: body_of([blosc2.compress2(bytes(100))] * 3), Caterva2Error),
        (lambda body: b"\x93NUMPY" + body, Caterva2Error),
    ],
)
def test_a_malformed_answer_is_an_error(decoders, alone, spoil, error) -> None:
    with pytest.raises(error):
        read(spoil(body_of(records())), decoders, alone=alone)


def test_an_error_in_a_thread_is_raised_and_nothing_goes_on(decoders) -> None:
    first, *others = records()
    spoiled = bytearray(first)
    spoiled[200:] = bytes(len(first) - 200)
    with pytest.raises((Caterva2Error, ValueError)):
        read(body_of([bytes(spoiled), *others]), decoders)
    assert np.array_equal(read(body_of(records()), decoders), TRUTH)


def test_an_interrupt_leaves_nothing_under_way(decoders) -> None:
    class Interrupted(Stream):
        def read_into(self, target: memoryview) -> None:
            if self.tell() > 4:
                raise KeyboardInterrupt
            super().read_into(target)

    out = np.empty(TRUTH.shape, TRUTH.dtype)
    with pytest.raises(KeyboardInterrupt):
        read_blocks(Interrupted(body_of(records())), LAYOUT, select((), TRUTH.shape), out, decoders)
    waiting = [decoders.executor().submit(int) for _ in range(decoders.threads)]
    assert [one.result(10) for one in waiting] == [0] * decoders.threads


def test_threads_end_with_the_client(decoders) -> None:
    executor = decoders.executor()
    assert decoders.executor() is executor
    executor.submit(int).result()
    decoders.close()
    executor.shutdown()
    assert not any(thread.is_alive() for thread in executor._threads)
    assert np.array_equal(read(body_of(records()), decoders), TRUTH)  # they are started anew


def test_memory_is_kept_by_thread(decoders) -> None:
    mine = decoders.scratch("decoded", 1000)
    assert decoders.scratch("decoded", 10) is mine
    assert len(decoders.scratch("decoded", 2000)) == 2000
    assert decoders.scratch("received", 10) is not decoders.scratch("decoded", 10)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(decoders.scratch, "decoded", 10).result() is not mine
    large = decoders.scratch("decoded", module.PIECE_BYTES + 1)
    assert decoders.scratch("decoded", module.PIECE_BYTES + 1) is not large


def test_what_is_read_first_and_small_does_without_blosc2(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "blosc2")
    decoders = Decoders()
    assert not decoders.wanted(100)
    assert decoders.wanted(100)
    assert Decoders().wanted(module.LARGE_BYTES)
    monkeypatch.setitem(sys.modules, "blosc2", blosc2)
    assert Decoders().wanted(100)


def test_a_process_that_reads_a_small_part_imports_no_blosc2(running, client, tmp_path) -> None:
    client.download("foo/ints.b2nd", tmp_path)  # all here: there is nothing to be planned
    script = (
        f"import caterva2, sys; array = caterva2.connect({running.url!r})['foo/ints.b2nd']\n"
        "assert array[3, 4] == 154 and 'blosc2' not in sys.modules\n"
        "assert array[50, 40] == 2540 and 'blosc2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_service_without_blocks_is_read_all_the_same(client, serving, truths) -> None:
    """One of an earlier release, which answers in the other form that is accepted."""
    buffer = io.BytesIO()
    np.save(buffer, truths["ints.b2nd"])
    info = client.info("foo/ints.b2nd")
    server, transport = serving(
        lambda handler: serving.send(handler, buffer.getvalue(), Content_Type="application/x-npy")
    )
    assert np.array_equal(Array(transport, info)[:], truths["ints.b2nd"])
    assert server.requests[0][2]["Accept"] == f"{BLOCKS}, application/x-npy;q=0.5"


def test_blocks_that_cannot_be_decoded_here_are_asked_for_in_another_form(
    client, monkeypatch, truths, tmp_path
) -> None:
    client.download("foo/ints.b2nd", tmp_path)  # all here: there is nothing to be planned
    asked = []

    def fail(*args, **options) -> None:
        asked.append(args)
        raise Unsupported("a codec from tomorrow")

    monkeypatch.setattr(array_module, "read_blocks", fail)
    assert np.array_equal(client["foo/ints.b2nd"][...], truths["ints.b2nd"])
    assert len(asked) == 1


def test_large_reads_are_decoded_here(running, client, root, monkeypatch) -> None:
    truth = np.cumsum(np.random.default_rng(4).integers(-3, 4, (500, 600)), axis=1)
    write_array(root / "walk.b2nd", truth, chunks=(100, 200), blocks=(10, 50))
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: "walk.b2nd" in entries)
    monkeypatch.setattr(array_module, "PART_BYTES", 200_000)
    seen = []
    monkeypatch.setattr(
        array_module, "read_blocks", lambda *args, **how: seen.append(how) or read_blocks(*args, **how)
    )
    array = client["foo/walk.b2nd"]
    for key in ((), (slice(3, 400), slice(7, 590)), (slice(None, None, -3), slice(10, 300, 2))):
        assert np.array_equal(array[key], truth[key])
    assert sum(how["alone"] for how in seen) > 10


def test_readers_in_threads_share_a_client(client, truths) -> None:
    truth, wrong = truths["cube.b2nd"], []
    array = client["foo/cube.b2nd"]

    def read_some(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            key = tuple(slice(*sorted(map(int, rng.integers(0, n + 1, 2)))) for n in truth.shape)
            if not np.array_equal(array[key], truth[key]):
                wrong.append(key)

    threads = [threading.Thread(target=read_some, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
