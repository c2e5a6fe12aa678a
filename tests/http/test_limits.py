from __future__ import annotations

import asyncio
import io
import json

import pytest

from caterva2.http import limits

TARGET = "/api/fetch/foo/dir/a.b2nd"


async def pieces(nbytes: int):
    for _ in range(nbytes // 1000):
        yield b" " * 1000
    yield b"{}"


@pytest.mark.parametrize("target", [TARGET, "/health", "/api/roots"])
async def test_a_body_that_is_too_large_is_refused_on_every_route(running, target) -> None:
    for body in (io.BytesIO(b"x" * (limits.MAX_BODY_BYTES + 1)), pieces(limits.MAX_BODY_BYTES + 1000)):
        status, problem = await running.problem(target, "POST", data=body)
        assert (status, problem["limit_bytes"]) == (413, limits.MAX_BODY_BYTES)
        assert problem["nbytes"] > limits.MAX_BODY_BYTES


async def test_a_body_below_the_limit_may_come_in_pieces(running) -> None:
    status, _, body = await running.get(TARGET, "POST", data=pieces(500_000))
    assert status == 200
    assert body


async def test_a_body_that_does_not_arrive_is_given_up(running, monkeypatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.2)
    address = running.server.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(f"POST {TARGET} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_client_that_goes_before_its_body_is_complete_asks_nothing(running, files) -> None:
    address = running.server.address
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(f"POST {TARGET} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{}}".encode())
    await writer.drain()
    writer.close()
    state = running.server._server.server_state
    async with asyncio.timeout(5):
        while state.total_requests or state.tasks or state.connections:
            await asyncio.sleep(0.01)
    metrics = (await running.get("/metrics"))[2].decode()
    assert 'method="POST",route="/api/fetch/"' not in metrics


async def test_a_compact_question_is_read_whole(running) -> None:
    question = {"indices": [list(range(60)) * 300, 0]}
    assert len(json.dumps(question)) > 65_536
    status, _, _ = await running.get(TARGET, "POST", json=question)
    assert status == 200
