import pytest

from caterva2.bus.buckets import BUCKETS
from caterva2.bus.connection import BusAddress, close, connect
from caterva2.errors import Unavailable
from caterva2.testing.nats_cluster import nats_cluster


async def replicas_made(address):
    client = await connect(address)
    try:
        jetstream = client.jetstream()
        return {(await jetstream.stream_info(f"KV_{bucket}")).config.num_replicas for bucket in BUCKETS}
    finally:
        await close(client)


async def test_one_server_keeps_them_alone(server):
    assert await replicas_made(server.address) == {1}


async def test_cluster_keeps_them_on_three_servers_once_there_is_room(tmp_path):
    with nats_cluster(tmp_path) as nats:
        with pytest.raises(Unavailable, match="no room for 5 replicas"):
            await connect(BusAddress(tuple(nats.urls), replicas=5))
        for node in nats.nodes[1:]:
            node.kill()
        address = BusAddress(tuple(nats.urls[:1]))
        with pytest.raises(Unavailable, match="electing"):
            await connect(address)
        for node in nats.nodes[1:]:
            node.start()
        nats.wait_ready()
        assert await replicas_made(address) == {3}
        assert await replicas_made(BusAddress(address.urls, replicas=1)) == {3}


async def test_operator_may_want_fewer(tmp_path):
    with nats_cluster(tmp_path) as nats:
        assert await replicas_made(BusAddress(tuple(nats.urls), replicas=1)) == {1}
