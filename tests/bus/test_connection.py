import asyncio
import os
import signal
import socket

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from caterva2.bus.address import without_secrets
from caterva2.bus.buckets import DATA, Bucket
from caterva2.bus.connection import Bus, BusAddress, ask_broker, connect
from caterva2.bus.server import NatsServer, find_binary
from caterva2.config import Token
from caterva2.errors import BusError, Corrupt, Unauthorized, Unavailable

SECRET = Token("not-to-be-shown")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def broker_url(stack):
    """Serve an answer to /api/bus."""

    async def serve(handler):
        app = web.Application()
        app.router.add_get("/api/bus", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    return serve


def test_address_survives_json():
    for address in (BusAddress(("nats://a:1", "nats://b:2"), SECRET), BusAddress(("nats://a:1",))):
        assert BusAddress.from_json(address.to_json()) == address


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"urls": []}, {"urls": "nats://a"}, {"urls": [1]}, {"urls": ["a"], "token": 1}]
)
def test_malformed_address_is_corrupt(raw):
    with pytest.raises(Corrupt):
        BusAddress.from_json(raw)


def test_secrets_are_not_shown():
    address = BusAddress(("nats://user:pass@host:4222", "nats://token@host"), SECRET)
    assert str(address) == "nats://host:4222, nats://host"
    assert "not-to-be-shown" not in repr(address)
    assert without_secrets("nats://a:1") == "nats://a:1"


async def test_broker_is_asked_with_the_token(broker_url):
    async def handler(request):
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            raise web.HTTPUnauthorized
        return web.json_response({"urls": ["nats://a:1"], "token": "t" * 8})

    url = await broker_url(handler)
    assert await ask_broker(url, SECRET) == BusAddress(("nats://a:1",), Token("t" * 8))
    with pytest.raises(Unauthorized, match="refuses the token"):
        await ask_broker(url, Token("another-one"))


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [(404, "", BusError), (200, "<html>", BusError), (200, "{}", BusError), (503, "", Unavailable)],
)
async def test_other_answers_are_errors_that_name_the_broker(broker_url, status, text, error):
    async def handler(_):
        return web.Response(status=status, text=text)

    url = await broker_url(handler)
    with pytest.raises(error, match=url):
        await ask_broker(url, None)


async def test_nobody_there_is_unavailable():
    port = free_port()
    with pytest.raises(Unavailable, match=str(port)):
        await ask_broker(f"http://127.0.0.1:{port}", None)
    with pytest.raises(Unavailable, match=str(port)):
        await connect(BusAddress((f"nats://127.0.0.1:{port}",)))


async def test_wrong_token_is_refused(server):
    with pytest.raises(BusError, match="refuses the token"):
        await connect(BusAddress(server.address.urls, Token("wrong-token")))


async def test_server_without_jetstream_is_refused():
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        find_binary(), "-a", "127.0.0.1", "-p", str(port), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        address = BusAddress((f"nats://127.0.0.1:{port}",))
        async with asyncio.timeout(10):
            while True:
                try:
                    await connect(address)
                except Unavailable:
                    await asyncio.sleep(0.01)
                except BusError as error:
                    assert "JetStream" in str(error)
                    break
    finally:
        process.terminate()
        await process.wait()


async def test_any_server_of_the_list_will_do(server):
    address = BusAddress((f"nats://127.0.0.1:{free_port()}", *server.address.urls), server.token)
    for _ in range(4):
        client = await connect(address)
        await client.close()


async def test_comes_back_when_the_server_is_killed(server, bus, eventually):
    with capture_logs() as logs:
        for _ in range(2):
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: not bus.connected)
            assert bus.problem
            await eventually(lambda: bus.connected)
    assert bus.problem is None
    async with bus.session() as client:
        await Bucket(client, DATA).put("foo.a", b"still here")
    events = [entry["event"] for entry in logs]
    assert events.count("bus lost, connecting again") == 2  # said once for each time
    assert events.count("bus connected") == 2


async def test_session_ends_with_its_connection(server, bus):
    with pytest.raises(BusError, match="lost"):
        async with asyncio.timeout(10), bus.session():
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.Event().wait()


async def test_session_leaves_other_timeouts_alone(bus):
    with pytest.raises(TimeoutError):
        async with bus.session(), asyncio.timeout(0.01):
            await asyncio.Event().wait()
    assert bus.connected


async def test_asks_again_where_the_bus_is_when_it_moved(tmp_path, server, stack, eventually):
    async with NatsServer(tmp_path / "first") as first:
        where = [first]

        async def locate():
            return where[0].address

        bus = await stack.enter_async_context(Bus(locate))
        await bus.wait_connected()
        where[0] = server  # another port, another token
    await eventually(lambda: not bus.connected)
    async with asyncio.timeout(10), bus.session() as client:
        assert client.connected_url.port == server.port


async def test_waits_for_a_bus_that_is_not_there_yet_and_says_so_once(server, stack, eventually):
    asked = []

    async def locate():
        asked.append(True)
        if len(asked) < 4:
            raise Unavailable("no broker yet")
        return server.address

    with capture_logs() as logs:
        bus = await stack.enter_async_context(Bus(locate))
        await bus.wait_connected()
    assert len(asked) == 4
    assert [entry["reason"] for entry in logs if entry["log_level"] == "warning"] == ["no broker yet"]


async def test_keeps_the_bus_when_the_broker_is_gone(server, stack, eventually):
    asked = []

    async def locate():
        asked.append(True)
        if len(asked) > 1:
            raise Unavailable("the broker is gone")
        return server.address

    bus = await stack.enter_async_context(Bus(locate))
    await bus.wait_connected()
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: not bus.connected)
    await eventually(lambda: bus.connected)


async def test_token_is_in_no_log(server, stack, eventually):
    async def locate():
        return BusAddress(server.address.urls, where[0])

    where = [SECRET]
    with capture_logs() as logs:
        bus = await stack.enter_async_context(Bus(locate))
        await eventually(lambda: bus.problem)
        where[0] = server.token
        await bus.wait_connected()
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: not bus.connected)
        await bus.wait_connected()
    assert len(logs) >= 4
    assert SECRET not in str(logs)
    assert server.token not in str(logs)
