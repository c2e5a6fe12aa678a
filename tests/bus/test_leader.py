from caterva2.bus.access import Access
from caterva2.bus.buckets import ALIVE
from caterva2.bus.connection import Bus, BusAddress, close, connect
from caterva2.bus.leader import Leader
from caterva2.testing.nats_cluster import nats_cluster


async def test_lost_majority_is_noticed_while_it_matters(tmp_path, stack, spawn, eventually):
    with nats_cluster(tmp_path) as nats:
        first = BusAddress((nats.urls[0],), access=Access())

        async def locate():
            return first

        await close(await connect(first))
        bus = await stack.enter_async_context(Bus(locate))
        await bus.wait_connected()
        in_doubt, idle = Leader(bus, ALIVE, lambda: True), Leader(bus, ALIVE, lambda: False)
        for leader in (in_doubt, idle):
            spawn(leader.run())
        assert in_doubt.there
        for node in nats.nodes[1:]:
            node.kill()
        await eventually(lambda: not in_doubt.there)
        assert idle.there
        nats.nodes[1].start()
        await eventually(lambda: in_doubt.there, 40)
