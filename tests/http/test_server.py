from __future__ import annotations

import asyncio
import socket
import time

import aiohttp
import pytest

from caterva2.config import Address
from caterva2.errors import CannotListen
from caterva2.http.server import Server, announced_url


async def app(scope, receive, send) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(60)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def asked(url: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.read()


async def test_port_0_is_a_free_one(running) -> None:
    assert running.server.address.port > 0
    assert (await running.get("/health"))[0] == 200


async def test_no_header_names_the_software(running) -> None:
    assert "Server" not in (await running.get("/health"))[1]


async def test_an_address_in_use_is_named(running) -> None:
    with pytest.raises(CannotListen, match=f"{running.server.address}.*in use"):
        async with Server(app, running.server.address):
            pass
    assert (await running.get("/health"))[0] == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
async def test_an_address_of_others_is_named(host) -> None:
    with pytest.raises(CannotListen, match=f"cannot listen on {host}:0"):
        async with Server(app, Address(host, 0)):
            pass


async def test_the_address_is_free_again_at_once() -> None:
    async with Server(app, Address("127.0.0.1", 0)) as server:
        address = server.address
    async with Server(app, address):
        assert await asked(address.url) == b"ok"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback")
    async with Server(app, Address("::1", 0)) as server:
        assert await asked(server.address.url) == b"ok"


async def test_idle_connections_do_not_keep_it_from_stopping() -> None:
    async with Server(app, Address("127.0.0.1", 0)) as server:
        host, port = server.address.host, server.address.port
        silent = await asyncio.open_connection(host, port)
        used = await asyncio.open_connection(host, port)
        used[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await used[0].readuntil(b"ok")).endswith(b"ok")
        began = time.monotonic()
    assert time.monotonic() - began < 1
    for reader, writer in (silent, used):
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_an_answer_that_takes_too_long_is_broken_off(monkeypatch) -> None:
    from caterva2.http import server as module

    monkeypatch.setattr(module, "STOP_S", 0.5)
    async with Server(app, Address("127.0.0.1", 0)) as server, aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.get(f"{server.address.url}/slow"))
        state = server._server.server_state
        async with asyncio.timeout(5):
            while not state.tasks:
                await asyncio.sleep(0.01)
        began = time.monotonic()
        await server.__aexit__()
        assert time.monotonic() - began < 2
        assert not state.tasks
        with pytest.raises(aiohttp.ClientError):
            await request


async def test_waiting_ends_with_the_server() -> None:
    async with Server(app, Address("127.0.0.1", 0)) as server:
        waiting = asyncio.create_task(server.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 2)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.2", "http://127.0.0.2:81"), ("store", "http://store:81"), ("::1", "http://[::1]:81")],
)
def test_a_service_is_announced_where_it_listens(host, expected) -> None:
    assert announced_url(Address(host, 81), "http://127.0.0.1:8000") == expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_service_on_every_interface_is_announced_at_one_that_others_reach(host) -> None:
    url = announced_url(Address(host, 81), "http://127.0.0.1:8000")
    assert url.endswith(":81")
    assert not any(none in url for none in ("0.0.0.0", "//127.", "[::"))
