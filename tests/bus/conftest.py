"""A real nats-server, connections to it, and parts that run until the test ends."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from caterva2.bus.announcer import Announcer
from caterva2.bus.catalogue import CatalogueView
from caterva2.bus.connection import Bus
from caterva2.bus.server import NatsServer
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Entry


async def wait_until(condition, timeout_s=15.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def eventually():
    return wait_until


@pytest.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def server(tmp_path):
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def spawn(stack):
    """Run a coroutine until the test ends; returns what stops it before."""

    def spawn(coroutine):
        task = asyncio.create_task(coroutine)

        async def stop():
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            # nats-py may take a cancellation for itself; what counts is that it ended, not by a failure
            assert results[0] is None or isinstance(results[0], asyncio.CancelledError), results

        stopped = []

        async def stop_once():
            if not stopped:
                stopped.append(True)
                await stop()

        stack.push_async_callback(stop_once)
        return stop_once

    return spawn


@pytest.fixture
def connect_bus(stack, server):
    async def connect_bus(locate=None):
        async def here():
            return server.address

        return await stack.enter_async_context(Bus(locate or here))

    return connect_bus


@pytest.fixture
async def bus(connect_bus):
    bus = await connect_bus()
    await bus.wait_connected()
    return bus


@pytest.fixture
def make_entry():
    generations = iter(range(1_800_000_000_000, 1_900_000_000_000))

    def make_entry(size=10, **members):
        generation = next(generations)
        return Entry(
            etag=f"{generation:032x}", generation=generation, size=size, kind="file", mtime=1.5, **members
        )

    return make_entry


class Announced:
    """A catalogue that is announced."""

    def __init__(self, announcer, catalogue, stop):
        self.announcer, self.catalogue, self.stop = announcer, catalogue, stop


@pytest.fixture
def announce(connect_bus, spawn):
    async def announce(root="foo", *, instance="one", entries=None, bus=None, **options):
        catalogue = Catalogue()
        catalogue.set_root(root)
        for name, entry in (entries or {}).items():
            catalogue.apply(root, name, entry)
        announcer = Announcer(
            bus or await connect_bus(),
            catalogue,
            {root: "A title"},
            instance=instance,
            url=f"http://{instance}:8001",
            **options,
        )
        return Announced(announcer, catalogue, spawn(announcer.run()))

    return announce


@pytest.fixture
def observe(connect_bus, spawn):
    async def observe(catalogue=None, bus=None, **options):
        catalogue = catalogue or Catalogue()
        view = CatalogueView(bus or await connect_bus(), catalogue, **options)
        spawn(view.run())
        return view, catalogue

    return observe


@pytest.fixture
def agree():
    """Whether a view confirmed that it has what a catalogue has."""

    def agree(theirs, mine, root="foo"):
        found = theirs.roots.get(root)
        return found is not None and found.fresh and found.entries == mine.roots[root].entries

    return agree


@pytest.fixture
def clock():
    return time.perf_counter
