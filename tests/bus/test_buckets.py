import asyncio

import pytest

from caterva2.bus.buckets import ALIVE, DATA, ROOTS, Bucket, Gone, Stored
from caterva2.bus.connection import BusAddress, close, connect
from caterva2.bus.streams import ensure
from caterva2.errors import BusError


@pytest.fixture
async def client(server):
    client = await connect(server.address)
    yield client
    await close(client)


async def test_values_revisions_and_markers(client):
    bucket = Bucket(client, DATA)
    assert await bucket.get("foo.a") == Stored(None, 0)
    first = await bucket.put("foo.a", b"one")
    assert await bucket.get("foo.a") == Stored(b"one", first)
    second = await bucket.delete("foo.a", 60)
    assert second > first
    assert await bucket.get("foo.a") == Stored(None, second, Gone.DELETED)


async def test_many_values_are_put_at_once(client):
    bucket = Bucket(client, DATA)
    assert await bucket.put_all({}) == {}
    values = {f"foo.{n}": b"%d" % n for n in range(700)}
    revisions = await bucket.put_all(values)
    assert len(set(revisions.values())) == 700
    for key in ("foo.0", "foo.699"):
        assert await bucket.get(key) == Stored(values[key], revisions[key])
    again = await bucket.put_all({"foo.0": b"again"})
    assert again["foo.0"] > max(revisions.values())


async def test_one_of_many_that_is_refused_is_an_error_that_names_it(client):
    jetstream = client.jetstream()
    config = (await jetstream.stream_info(f"KV_{DATA}")).config
    config.max_msg_size = 100
    await jetstream.update_stream(config)
    bucket = Bucket(client, DATA)
    with pytest.raises(BusError, match=r"foo\.large"):
        await bucket.put_all({"foo.small": b"1", "foo.large": b"2" * 200})
    assert (await bucket.get("foo.small")).value == b"1"
    await jetstream.delete_stream(f"KV_{DATA}")
    with pytest.raises(BusError, match=r"foo\.small"):
        await bucket.put_all({"foo.small": b"3"})


async def test_replace_is_compare_and_swap(client):
    bucket = Bucket(client, ROOTS)
    revision = await bucket.replace("foo", b"mine", 0)
    assert revision
    assert await bucket.replace("foo", b"theirs", 0) is None
    assert (await bucket.get("foo")).value == b"mine"
    assert await bucket.replace("foo", b"newer", revision)
    marker = await bucket.delete("foo")
    assert await bucket.replace("foo", b"again", marker)


async def test_one_of_many_wins(client):
    bucket = Bucket(client, ROOTS)
    won = await asyncio.gather(*(bucket.replace("foo", b"%d" % n, 0) for n in range(20)))
    assert sum(revision is not None for revision in won) == 1


async def test_buckets_that_are_there_stay(client):
    await Bucket(client, DATA).put("foo.a", b"one")
    await ensure(client)
    assert (await Bucket(client, DATA).get("foo.a")).value == b"one"


async def test_missing_bucket_is_an_error_that_names_it(client):
    await client.jetstream().delete_stream(f"KV_{ALIVE}")
    with pytest.raises(BusError, match=ALIVE):
        await Bucket(client, ALIVE).put("foo", b"beat")


async def test_bucket_of_another_making_is_refused(client):
    jetstream = client.jetstream()
    await jetstream.delete_stream(f"KV_{DATA}")
    await jetstream.add_stream(name=f"KV_{DATA}", subjects=[f"$KV.{DATA}.>"])
    with pytest.raises(BusError, match=f"{DATA}.*TTL"):
        await ensure(client)


async def test_old_server_is_refused_by_its_version():
    async def answer(reader, writer):
        writer.write(b'INFO {"server_id":"x","version":"2.9.25","headers":true,"max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as old:
        port = old.sockets[0].getsockname()[1]
        with pytest.raises(BusError, match=r"2\.9\.25 is too old: 2\.11"):
            await connect(BusAddress((f"nats://127.0.0.1:{port}",)))
