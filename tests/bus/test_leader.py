import pytest

from caterva2.bus.buckets import ALIVE
from caterva2.bus.connection import Bus, BusAddress, close, connect
from caterva2.bus.leader import Leader
from caterva2.testing.nats_cluster import nats_cluster


@pytest.fixture
def cluster(tmp_path):
    with nats_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def survivor(cluster, stack, eventually):
    """A connection to a server that leads nothing, and the two others."""
    await close(await connect(BusAddress(tuple(cluster.urls))))
    await eventually(lambda: cluster.leader(f"KV_{ALIVE}"))
    leading = cluster.leader(f"KV_{ALIVE}")
    other, survivor = (node for node in cluster.nodes if node is not leading)
    address = BusAddress((cluster.urls[cluster.nodes.index(survivor)],))

    async def locate():
        return address

    bus = await stack.enter_async_context(Bus(locate))
    await bus.wait_connected()
    return bus, (leading, other)


async def test_missing_leader_is_noticed_while_it_matters(survivor, spawn, eventually):
    bus, others = survivor
    in_doubt, idle = Leader(bus, ALIVE, lambda: True), Leader(bus, ALIVE, lambda: False)
    for leader in (in_doubt, idle):
        spawn(leader.run())
    assert in_doubt.there
    for node in others:
        node.kill()
    await eventually(lambda: not in_doubt.there)
    assert idle.there
