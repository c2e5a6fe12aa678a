import pytest
from nats.js import api

from caterva2.bus.access import Access
from caterva2.bus.buckets import ALIVE, BUCKETS, ROOTS, config_of
from caterva2.bus.check import check_bus
from caterva2.bus.client import open_client
from caterva2.bus.connection import BusAddress, close, connect
from caterva2.bus.permissions import SOURCES, permissions_of, server_block
from caterva2.testing.nats_cluster import nats_cluster


async def findings(address, role, roots=()):
    return {finding.check: finding async for finding in check_bus(address, role, roots)}


def failed(found):
    return {check: finding.detail for check, finding in found.items() if not finding.ok}


async def streams(address):
    client = await connect(address)
    try:
        return {b: (await client.jetstream().stream_info(f"KV_{b}")).state for b in BUCKETS}
    finally:
        await close(client)


async def test_good_bus_is_good_for_all_and_nothing_is_left_on_it(server):
    for role in ("broker", "publisher", "subscriber"):
        found = await findings(server.address, role, ["foo"])
        assert failed(found) == {}
        assert f"read {ALIVE}" in found
        assert (f"write {ROOTS} foo" in found) == (role == "publisher")
    for state in (await streams(server.address)).values():
        assert (state.messages, state.last_seq) == (0, 0)


async def test_missing_buckets_are_made_for_a_broker_alone(server):
    assert set(failed(await findings(server.address, "subscriber"))) == {f"bucket {b}" for b in BUCKETS}
    assert failed(await findings(server.address, "broker")) == {}
    assert failed(await findings(server.address, "subscriber")) == {}


async def test_server_that_is_away_is_told_from_one_that_refuses(server):
    url = server.address.urls[0]
    away = "nats://127.0.0.1:1"
    found = await findings(BusAddress((away, url), server.token), "broker")
    assert set(failed(found)) == {f"server {away}"}
    assert not found[f"server {away}"].reached
    found = await findings(BusAddress((url,)), "broker")
    assert "wants credentials" in failed(found)[f"server {url}"]
    assert found[f"server {url}"].reached


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"storage": api.StorageType.MEMORY}, "storage is memory in place of StorageType.FILE"),
        ({"subject_delete_marker_ttl": None}, "subject_delete_marker_ttl"),
        ({"max_age": 60.0, "duplicate_window": 60.0}, "max_age is 60.0 in place of None"),
    ],
)
async def test_bucket_that_was_made_otherwise_is_found(server, change, said):
    client = await open_client(server.address.urls[0], server.address)
    await client.jetstream().add_stream(config_of(ROOTS).evolve(**change))
    await close(client)
    assert said in failed(await findings(server.address, "broker"))[f"bucket {ROOTS}"]


async def test_further_source_writes_to_a_bucket_of_its_own(server):
    assert failed(await findings(server.address, "broker")) == {}
    found = [finding async for finding in check_bus(server.address, "subscriber", republish=True)]
    assert [finding.ok for finding in found if finding.check.startswith(f"write {SOURCES}")] == [True]


async def test_what_is_not_permitted_is_found(tmp_path):
    writer = server_block("p", permissions_of("publisher", ["foo"])).removesuffix("] }")
    maker = server_block("b", permissions_of("broker")).removeprefix("authorization { users: [")
    environment = {"P_PASSWORD": "secret-of-p", "B_PASSWORD": "secret-of-b"}
    for user in ("p", "b"):
        (tmp_path / user).write_text(f"{user}:secret-of-{user}")
    with nats_cluster(tmp_path / "n", size=1, configuration=writer + maker, environment=environment) as nats:
        as_broker, as_publisher = (BusAddress(tuple(nats.urls), access=Access(tmp_path / u)) for u in "bp")
        assert failed(await findings(as_broker, "broker")) == {}
        assert failed(await findings(as_publisher, "publisher", ["foo"])) == {}
        denied = failed(await findings(as_publisher, "publisher", ["bar"]))
    assert len(denied) == 3
    assert all("permission denied" in detail for detail in denied.values())
