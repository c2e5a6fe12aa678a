"""Pipes from an event loop to threads: bounded, and ended from either side."""

from __future__ import annotations

import asyncio
import threading

import pytest

from caterva2.client.decoding import PIPE_BYTES, Decoding
from caterva2.errors import Unavailable
from caterva2.testing.waiting import until


@pytest.fixture
def decoding():
    decoding = Decoding(2)
    yield decoding
    decoding.close()


async def pieces(*parts):
    for part in parts:
        yield part


async def test_it_is_read_as_a_stream(decoding) -> None:
    def read(pipe):
        target = bytearray(5)
        first = pipe.read(3)
        pipe.read_into(memoryview(target))
        return first, bytes(target), pipe.read_exactly(1), pipe.read(10), pipe.read(1)

    got = await decoding.decode(pieces(b"ab", b"cdefg", b"", b"hi", b"jkl"), read)
    assert got == (b"abc", b"defgh", b"i", b"jkl", b"")


@pytest.mark.parametrize(
    "read", [lambda pipe: pipe.read_exactly(9), lambda pipe: pipe.read_into(memoryview(bytearray(9)))]
)
async def test_what_ends_too_early_is_said(decoding, read) -> None:
    with pytest.raises(Unavailable, match="broken off"):
        await decoding.decode(pieces(b"abc"), read)


async def test_who_is_faster_waits(decoding) -> None:
    """A pipe holds little, however much comes."""
    taken, go_on = [], threading.Event()

    async def many():
        for _ in range(50):
            taken.append(PIPE_BYTES // 4)
            yield bytes(taken[-1])

    def read(pipe):
        go_on.wait(20)
        return len(pipe.read(100 * PIPE_BYTES))

    reading = asyncio.ensure_future(decoding.decode(many(), read))
    await until(lambda: sum(taken) >= PIPE_BYTES)
    for _ in range(5):
        await asyncio.sleep(0)
    assert sum(taken) == PIPE_BYTES
    go_on.set()
    assert await reading == 50 * PIPE_BYTES // 4


async def test_a_reader_that_fails_ends_it(decoding) -> None:
    async def endless():
        while True:
            yield bytes(PIPE_BYTES)

    def read(pipe):
        pipe.read(10)
        raise ValueError("not what it should be")

    with pytest.raises(ValueError, match="not what"):
        await decoding.decode(endless(), read)


async def test_an_answer_that_breaks_off_ends_the_reader(decoding) -> None:
    ended = threading.Event()

    async def broken():
        yield b"abc"
        raise Unavailable("it broke")

    def read(pipe):
        try:
            pipe.read(10)
        finally:
            ended.set()

    with pytest.raises(Unavailable, match="it broke"):
        await decoding.decode(broken(), read)
    assert ended.is_set()


async def test_more_answers_than_threads_come_one_after_the_other(decoding) -> None:
    got = await asyncio.gather(
        *[decoding.decode(pieces(b"x" * n), lambda pipe: pipe.read(100)) for n in range(9)]
    )
    assert [len(data) for data in got] == list(range(9))


async def test_one_that_waits_for_a_thread_can_be_cancelled(decoding) -> None:
    hold = threading.Event()
    busy = [
        asyncio.ensure_future(decoding.decode(pieces(b"x"), lambda pipe: hold.wait(20))) for _ in range(2)
    ]
    waiting = asyncio.ensure_future(decoding.decode(pieces(b"x"), lambda pipe: pipe.read(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    hold.set()
    await asyncio.gather(*busy)
