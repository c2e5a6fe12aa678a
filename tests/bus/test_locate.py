import pytest

from caterva2.broker.service import BrokerService
from caterva2.bus.connection import BusAddress, close, connect
from caterva2.bus.locate import existing_bus, locate, locate_below, meeting_place
from caterva2.config import Address, BrokerSettings, SubscriberSettings
from caterva2.errors import ConfigError, Unavailable

HERE = Address("127.0.0.1", 0)
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def credentials(tmp_path):
    path = tmp_path / "credentials"
    path.write_text("someone:not-to-be-shown")
    return path


async def test_with_a_bus_no_broker_is_asked(credentials):
    settings = SubscriberSettings(
        listen=HERE, broker=NOBODY, bus=("tls://n1", "tls://n2"), bus_credentials=credentials, bus_replicas=1
    )
    address = await locate(settings)()
    assert (address.urls, address.access.credentials, address.replicas) == (settings.bus, credentials, 1)
    assert meeting_place(settings) == "tls://n1"


async def test_without_a_bus_the_broker_is_asked():
    settings = SubscriberSettings(listen=HERE, broker=NOBODY)
    with pytest.raises(Unavailable, match=NOBODY):
        await locate(settings)()
    assert meeting_place(settings) == NOBODY


async def test_credentials_are_not_for_the_server_of_a_broker(tmp_path, credentials):
    async with BrokerService(BrokerSettings(listen=HERE, state=tmp_path / "broker")) as broker:
        settings = SubscriberSettings(listen=HERE, broker=broker.address.url, bus_credentials=credentials)
        address = await locate(settings)()
        assert (address.token, address.access.credentials) == (broker.nats.token, None)
        await close(await connect(address))


def test_what_is_in_the_file_is_told_to_nobody(credentials):
    address = existing_bus(BrokerSettings(bus=("nats://n1",), bus_credentials=credentials))
    assert address.to_json() == {"urls": ["nats://n1"], "token": None}
    assert BusAddress.from_json(address.to_json()).access.credentials is None


def test_credentials_that_cannot_be_read_are_an_error_at_once(tmp_path):
    settings = SubscriberSettings(listen=HERE, bus=("nats://n1",), bus_credentials=tmp_path / "absent")
    with pytest.raises(ConfigError, match="absent"):
        locate(settings)


def test_passwords_in_urls_are_not_shown():
    settings = BrokerSettings(bus=("nats://user:not-to-be-shown@n1",))
    assert "not-to-be-shown" not in repr(settings) + repr(existing_bus(settings)) + str(
        existing_bus(settings)
    )


async def test_the_group_below_has_credentials_of_its_own(tmp_path, credentials):
    below = tmp_path / "below"
    below.write_text("someone:else")
    own = BrokerSettings(listen=HERE, state=tmp_path / "broker", bus=("nats://127.0.0.1:1",))
    async with BrokerService(own) as broker:
        settings = SubscriberSettings(
            listen=HERE,
            bus=("nats://n1",),
            bus_credentials=credentials,
            republish_to=broker.address.url,
            republish_bus_credentials=below,
        )
        address = await locate_below(settings)()
    assert (address.urls, address.access.credentials) == (own.bus, below)
