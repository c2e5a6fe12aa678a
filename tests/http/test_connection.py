from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from caterva2.http import connection as module


@asynccontextmanager
async def raw(running):
    """Bytes to the server and back, without a client's ideas of HTTP."""
    address = running.server.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return int(head.split()[1]), await reader.readexactly(int(lines[b"content-length"]))


async def ended(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        return await reader.read()


async def test_pipelined_requests_are_answered_in_order(running) -> None:
    async with raw(running) as (reader, writer):
        for first in range(20):
            head = f"GET /data/foo/f.b2frame HTTP/1.1\r\nHost: x\r\nRange: bytes=0-{first}\r\n\r\n"
            writer.write(head.encode())
        for first in range(20):
            status, body = await answer(reader)
            assert (status, len(body)) == (206, first + 1)


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA B: c\r\n\r\n"]
)
async def test_what_is_not_http_is_a_problem(running, junk) -> None:
    async with raw(running) as (reader, writer):
        writer.write(junk)
        status, body = await answer(reader)
        assert status == 400
        assert b"urn:caterva2:problem:bad-request" in body
        assert await ended(reader) == b""


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_without_end_is_refused(running, begin) -> None:
    async with raw(running) as (reader, writer):
        writer.write(begin)
        piece = b"x: " + b"x" * 4000 + b"\r\n" if begin.endswith(b"\n") else b"x" * 4000
        answered, sent = asyncio.create_task(answer(reader)), 0
        while not answered.done() and sent < 10 * module.MAX_HEAD_BYTES:
            writer.write(piece)
            await asyncio.wait({answered}, timeout=0.002)
            sent += len(piece)
        status, body = await answered
        assert status == 431
        assert b"urn:caterva2:problem:bad-request" in body


async def test_a_body_is_no_head(running) -> None:
    body = b" " * 200_000 + b"{}"
    head = (
        f"POST /api/fetch/foo/f.b2frame HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    async with raw(running) as (reader, writer):
        for cut in (len(head) + len(body), len(head), 10):
            whole = head + body
            writer.write(whole[:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(whole[cut:])
            assert (await answer(reader))[0] == 200


async def test_a_large_head_below_the_limit_is_read(running) -> None:
    status, _, _ = await running.get("/health", headers={"X": "x" * 7000, "Y": "y" * 7000})
    assert status == 200


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"GET /health HTT",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /he",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n\r\n",
    ],
    ids=["nothing", "part of a head", "part of the next head", "an empty line"],
)
async def test_a_head_must_arrive_in_time(running, monkeypatch, begin) -> None:
    monkeypatch.setattr(module, "HEAD_S", 0.3)
    async with raw(running) as (reader, writer):
        if b"\r\n\r\n" in begin:
            first, end, rest = begin.partition(b"\r\n\r\n")
            writer.write(first + end)
            assert (await answer(reader))[0] == 200
            writer.write(rest)
        else:
            writer.write(begin)
        assert await ended(reader) == b""


async def test_a_peer_that_does_not_read_is_left(running, files, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.2)
    (tmp_path / "large").write_bytes(bytes(64 << 20))
    await files.add(tmp_path / "large", "large")
    state = running.server._server.server_state
    async with raw(running) as (_, writer):
        writer.transport.pause_reading()
        writer.write(b"GET /data/foo/large HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            while not state.connections:
                await asyncio.sleep(0.01)
            while state.connections:
                await asyncio.sleep(0.01)


async def test_a_slow_reader_gets_everything(running, files, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.2)
    (tmp_path / "large").write_bytes(bytes(24 << 20))
    await files.add(tmp_path / "large", "large")
    async with raw(running) as (reader, writer):
        writer.write(b"GET /data/foo/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        nbytes = 0
        while data := await reader.read(1 << 20):
            nbytes += len(data)
            await asyncio.sleep(0.02)  # slower than the server, never silent for as long as it would wait
        assert nbytes > 24 << 20


async def test_more_connections_than_the_limit_are_told_to_come_back(running, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(raw(running)) for _ in range(2)]
        for reader, writer in peers:
            writer.write(request)
            assert (await answer(reader))[0] == 200
        async with raw(running) as (reader, writer):
            writer.write(request)
            status, body = await answer(reader)
            assert status == 503
            assert b"urn:caterva2:problem:unavailable" in body
            assert await ended(reader) == b""
        for reader, writer in peers:  # these go on
            writer.write(request)
            assert (await answer(reader))[0] == 200


@pytest.mark.parametrize("behind_another", [False, True])
async def test_nothing_more_is_made_for_a_peer_that_left(running, files, monkeypatch, behind_another) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def read(head, extents):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(files, "read", read)
    monkeypatch.setattr("caterva2.http.bodies.WHOLE_BYTES", 0)
    async with asyncio.timeout(10):
        async with raw(running) as (_, writer):
            if behind_another:  # which is streamed: what serves it ends later than its last byte
                writer.write(b"GET /data/foo/text%20%C3%A9%20%23%3F%25.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            writer.write(b"GET /api/fetch/foo/dir/a.b2nd?slice_=0 HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
        await ended.wait()
