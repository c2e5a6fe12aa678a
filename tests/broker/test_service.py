import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack

import aiohttp
import pytest
from structlog.testing import capture_logs

from caterva2.broker.service import BrokerService
from caterva2.bus.announcer import Announcer
from caterva2.bus.connection import Bus, ask_broker, close, connect
from caterva2.bus.server import find_binary
from caterva2.bus.snapshot import ask_snapshot
from caterva2.config import Address, BrokerSettings, Token
from caterva2.errors import BusError, StateInUse, Unauthorized
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Entry
from caterva2.state import process_exists

ANY_PORT = Address("127.0.0.1", 0)
SECRET = Token("secret-of-the-group")

BROKER = """
import asyncio, sys
from pathlib import Path
from caterva2.broker.service import BrokerService
from caterva2.config import Address, BrokerSettings

async def main():
    settings = BrokerSettings(listen=Address("127.0.0.1", 0), state=Path(sys.argv[1]))
    async with BrokerService(settings) as broker:
        print(broker.address.port, broker.nats.pid, flush=True)
        await broker.wait()

asyncio.run(main())
"""


async def eventually(condition, timeout_s=15.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack, tmp_path):
    async def start(state="broker", **settings):
        settings = BrokerSettings(**{"listen": ANY_PORT, "state": tmp_path / state, **settings})
        return await stack.enter_async_context(BrokerService(settings))

    return start


@pytest.fixture
async def get(stack):
    session = await stack.enter_async_context(aiohttp.ClientSession())

    async def get(broker, path, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with session.get(broker.address.url + path, headers=headers) as answer:
            body = await answer.json() if "json" in answer.content_type else await answer.text()
            return answer.status, body

    return get


@pytest.fixture
def announce(stack):
    """Announce a root with one dataset at a broker."""

    async def announce(broker, root="foo"):
        catalogue = Catalogue()
        catalogue.set_root(root)
        catalogue.apply(root, "a.b2nd", Entry("a" * 32, 1, 10, "array", 1.5, (3, 4), "float64"))
        bus = await stack.enter_async_context(
            Bus(lambda: ask_broker(broker.address.url, broker.settings.token))
        )
        task = asyncio.create_task(
            Announcer(bus, catalogue, {root: "A title"}, instance="one", url="http://p:1").run()
        )

        async def stop():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)
        return catalogue

    return announce


async def test_shows_where_the_bus_is_and_what_is_published(start, get, announce):
    broker = await start()
    address = await ask_broker(broker.address.url, None)
    assert address == broker.nats.address
    await close(await connect(address))
    await announce(broker)
    await eventually(lambda: "foo" in broker.catalogue.roots and broker.catalogue.root("foo").fresh)
    assert (await get(broker, "/api/roots"))[1] == {
        "foo": {
            "name": "foo",
            "state": "online",
            "publisher": "http://p:1",
            "datasets": 1,
            "bytes": 10,
            "title": "A title",
            "behind": 0,
            "reset_at": None,
            "freshness": "fresh",
            "age_s": 0.0,
            "tiers": 0,
        }
    }
    assert await get(broker, "/api/list/foo") == (200, ["a.b2nd"])
    status, health = await get(broker, "/health")
    assert (status, health["status"], health["bus"], health["roots"]) == (
        200,
        "ok",
        "connected",
        {"foo": "online"},
    )
    status, metrics = await get(broker, "/metrics")
    assert status == 200
    assert 'caterva2_broker_datasets{root="foo"} 1.0' in metrics


async def test_events_are_streamed_and_end_with_the_broker(start, announce, stack):
    broker = await start()
    session = await stack.enter_async_context(aiohttp.ClientSession())
    async with session.get(f"{broker.address.url}/api/events") as events:
        catalogue = await announce(broker)
        received = b""
        async with asyncio.timeout(10):
            while b"event: created" not in received or b"event: online" not in received:
                received += await events.content.readany()
        catalogue.apply("foo", "a.b2nd", None)
        async with asyncio.timeout(10):
            while b"event: deleted" not in received:
                received += await events.content.readany()
        async with asyncio.timeout(5):
            await broker.__aexit__()
            while await events.content.readany():
                pass


async def test_second_broker_on_the_same_state_is_refused_by_pid(start):
    await start()
    with pytest.raises(StateInUse) as refused:
        await start()
    assert refused.value.pid == os.getpid()


async def test_restart_keeps_ports_token_and_what_is_published(tmp_path, start, announce):
    settings = BrokerSettings(listen=ANY_PORT, state=tmp_path / "kept")
    async with BrokerService(settings) as broker:
        await announce(broker)
        await eventually(lambda: "foo" in broker.catalogue.roots and broker.catalogue.root("foo").fresh)
        http, bus = broker.address, broker.nats.address
    async with BrokerService(settings) as broker:
        assert (broker.address, broker.nats.address) == (http, bus)
        await eventually(lambda: "foo" in broker.catalogue.roots and broker.catalogue.root("foo").fresh)
        assert broker.catalogue.root("foo").entries


async def test_taken_http_port_of_last_time_is_replaced(tmp_path):
    settings = BrokerSettings(listen=ANY_PORT, state=tmp_path)
    async with BrokerService(settings) as broker:
        port = broker.address.port
    with socket.create_server(("127.0.0.1", port)):
        async with BrokerService(settings) as broker:
            assert broker.address.port != port


async def test_token_is_needed_and_in_no_log(start, get, announce):
    with capture_logs() as logs:
        broker = await start(token=SECRET)
        for path in ("/api/bus", "/api/snapshot", "/api/roots", "/api/events", "/health", "/metrics"):
            assert (await get(broker, path))[0] == 401
        with pytest.raises(Unauthorized):
            await ask_broker(broker.address.url, None)
        assert (await get(broker, "/api/bus", SECRET))[0] == 200
        await announce(broker)
        await eventually(lambda: "foo" in broker.catalogue.roots and broker.catalogue.root("foo").fresh)
        assert await ask_snapshot(broker.address.url, None) is None
        assert b"foo" in await ask_snapshot(broker.address.url, SECRET)
        bus_token = broker.nats.token
        os.kill(broker.nats.pid, signal.SIGKILL)
        await eventually(lambda: not broker.bus.connected)
        await eventually(lambda: broker.bus.connected)
    assert len(logs) > 3
    assert SECRET not in str(logs)
    assert bus_token not in str(logs)


async def test_bus_is_named_as_the_asker_named_the_broker(start, stack):
    broker = await start(listen=Address("0.0.0.0", 0), token=SECRET)
    for host in ("localhost", "127.0.0.1"):
        address = await ask_broker(f"http://{host}:{broker.address.port}", SECRET)
        assert address.urls == (f"nats://{host}:{broker.nats.port}",)
    await close(await connect(address))


async def test_killed_bus_degrades_and_comes_back(start, get, announce):
    broker = await start()
    await announce(broker)
    await eventually(lambda: "foo" in broker.catalogue.roots and broker.catalogue.root("foo").fresh)
    os.kill(broker.nats.pid, signal.SIGSTOP)
    os.kill(broker.nats.pid, signal.SIGKILL)
    await eventually(lambda: not broker.bus.connected)
    status, health = await get(broker, "/health")
    assert (status, health["status"], health["bus"]) == (200, "degraded", "unreachable")
    await eventually(lambda: broker.bus.connected)
    assert (await get(broker, "/health"))[1]["status"] == "ok"
    await eventually(lambda: broker.catalogue.root("foo").fresh)


@pytest.fixture
async def existing(tmp_path):
    """A nats-server that was started by hand."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(find_binary(), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path / "existing")),
        *("--user", "someone", "--pass", "password-of-nats"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    await eventually(lambda: _listens(port))
    yield f"nats://someone:password-of-nats@127.0.0.1:{port}"
    process.terminate()
    await process.wait()


async def test_existing_nats_is_used(start, announce, existing, get):
    with capture_logs() as logs:
        broker = await start(bus=(existing,))
        assert broker.nats is None
        assert (await get(broker, "/api/bus"))[1] == {"urls": [existing], "token": None}
        await announce(broker)
        await eventually(lambda: "foo" in broker.catalogue.roots and broker.catalogue.root("foo").fresh)
    assert "password-of-nats" not in str(logs)


async def test_existing_nats_that_refuses_is_an_error(start, existing):
    with pytest.raises(BusError, match="refuses"):
        await start(bus=(existing.replace("password-of", "another"),))


async def test_existing_nats_that_does_not_answer_is_waited_for(start, get):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    broker = await start(bus=(f"nats://127.0.0.1:{port}",))
    status, health = await get(broker, "/health")
    assert (status, health["status"]) == (200, "degraded")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parents")
async def test_killed_broker_takes_nats_along_and_comes_back(tmp_path):
    state = tmp_path / "broker"
    with subprocess.Popen(
        [sys.executable, "-c", BROKER, str(state)], stdout=subprocess.PIPE, text=True
    ) as process:
        line = await asyncio.to_thread(_ready, process)
        port, child = map(int, line.split())
        with pytest.raises(StateInUse, match=str(process.pid)):
            await BrokerService(BrokerSettings(listen=ANY_PORT, state=state)).__aenter__()
        process.kill()
    await eventually(lambda: not process_exists(child), 5)
    async with BrokerService(BrokerSettings(listen=ANY_PORT, state=state)) as broker:
        assert broker.address.port == port


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ready(process):
    while line := process.stdout.readline():
        if line.split()[0].isdigit() and len(line.split()) == 2:
            return line
    raise AssertionError("the broker does not start")
