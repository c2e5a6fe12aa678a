import asyncio
import os
import shutil
import signal
import time

import pytest

from caterva2.bus.buckets import DATA, Bucket, Gone
from caterva2.bus.server import NatsServer
from caterva2.bus.view import View
from caterva2.turns import TURN_S


class Mirror:
    """What a view told."""

    def __init__(self):
        self.values, self.seen, self.changes, self.begun = {}, None, [], 0

    def begin(self):
        self.begun += 1
        self.seen = set()

    def change(self, change):
        self.changes.append(change)
        if self.seen is not None:
            self.seen.add(change.key)
        if change.value is None:
            self.values.pop(change.key, None)
        else:
            self.values[change.key] = change.value

    def done(self):
        for key in self.values.keys() - self.seen:
            del self.values[key]
        self.seen = None


@pytest.fixture
async def write(bus):
    async def write(**values):
        await bus.wait_connected()
        async with bus.session() as client:
            bucket = Bucket(client, DATA)
            for name, value in values.items():
                key = name.replace("__", ".")
                await (bucket.delete(key, 60) if value is None else bucket.put(key, value))

    return write


@pytest.fixture
def follow(bus, spawn):
    def follow(pattern=">"):
        mirror = Mirror()
        view = View(bus, DATA, pattern, mirror)
        spawn(view.run())
        return view, mirror

    return follow


async def test_tells_what_is_there_and_what_comes(write, follow, eventually):
    await write(foo__a=b"1", foo__b=b"2", bar__c=b"3", foo__gone=b"4")
    await write(foo__gone=None)
    view, mirror = follow("foo.>")
    await eventually(lambda: view.synced)
    assert mirror.values == {"foo.a": b"1", "foo.b": b"2"}
    await write(foo__a=b"5", bar__c=b"6", foo__b=None)
    await eventually(lambda: mirror.values == {"foo.a": b"5"})
    assert mirror.changes[-1].gone is Gone.DELETED
    revisions = [change.revision for change in mirror.changes]
    assert revisions == sorted(revisions)
    assert mirror.begun == view.resyncs == 1


async def test_empty_bucket_is_in_sync_at_once(write, follow, eventually):
    view, mirror = follow("nothing.>")
    await eventually(lambda: view.synced)
    assert mirror.seen is None
    assert mirror.changes == []


async def test_resumes_where_it_was_when_the_server_was_killed(server, bus, write, follow, eventually):
    await write(foo__a=b"1")
    view, mirror = follow()
    await eventually(lambda: view.synced)
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: not bus.connected and not view.synced)
    await write(foo__b=b"2", foo__a=None)
    await eventually(lambda: view.synced and mirror.values == {"foo.b": b"2"})
    assert (view.resyncs, view.resumes) == (1, 1)
    assert [change.key for change in mirror.changes].count("foo.a") == 2  # not told again


async def test_wiped_store_is_noticed(tmp_path, server, bus, write, follow, eventually):
    await write(foo__a=b"1", foo__b=b"2")
    view, mirror = follow()
    await eventually(lambda: view.synced)
    epoch = view.epoch
    shutil.rmtree(tmp_path / "nats" / "store")
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: view.synced and view.epoch != epoch)
    assert mirror.values == {}
    await write(foo__c=b"3")
    await eventually(lambda: mirror.values == {"foo.c": b"3"})
    assert view.resyncs == 2


async def test_store_of_an_earlier_time_is_noticed(tmp_path, server, bus, write, follow, eventually):
    await write(foo__a=b"1")
    view, mirror = follow()
    await eventually(lambda: view.synced)
    await server.__aexit__()
    shutil.copytree(tmp_path / "nats" / "store", tmp_path / "backup")
    async with NatsServer(tmp_path / "nats"):
        await write(foo__a=b"2", foo__b=b"3")
        await eventually(lambda: mirror.values == {"foo.a": b"2", "foo.b": b"3"})
    shutil.rmtree(tmp_path / "nats" / "store")
    shutil.move(tmp_path / "backup", tmp_path / "nats" / "store")
    await server.__aenter__()
    await eventually(lambda: view.synced and mirror.values == {"foo.a": b"1"})


async def test_deleted_bucket_is_made_again(bus, write, follow, eventually):
    await write(foo__a=b"1")
    view, mirror = follow()
    await eventually(lambda: view.synced)
    async with bus.session() as client:
        await client.jetstream().delete_stream(f"KV_{DATA}")
    await eventually(lambda: view.synced and mirror.values == {})
    await write(foo__b=b"2")
    await eventually(lambda: mirror.values == {"foo.b": b"2"})


async def test_reads_all_again_when_asked(write, follow, eventually):
    await write(foo__a=b"1")
    view, mirror = follow()
    await eventually(lambda: view.synced)
    mirror.values = {"foo.a": b"wrong", "foo.never": b"there"}
    view.resync("told so by a test")
    assert not view.synced
    await eventually(lambda: view.synced)
    assert mirror.values == {"foo.a": b"1"}


async def test_stopped_server_is_noticed_by_its_silence(server, write, follow, eventually):
    view, _ = follow()
    await eventually(lambda: view.synced)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await eventually(lambda: not view.synced, 6)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await eventually(lambda: view.synced)


async def test_many_changes_while_it_reads(bus, write, follow, eventually):
    """What is written while all is read for the first time is told too, and the last of it is what stays."""

    async def put(client, number):
        await Bucket(client, DATA).put(f"foo.k{number % 200}", b"%d" % number)

    async with bus.session() as client:
        await asyncio.gather(*(put(client, n) for n in range(400)))
        view, mirror = follow()
        for start in range(400, 2000, 200):
            await asyncio.gather(*(put(client, n) for n in range(start, start + 200)))
    expected = {f"foo.k{n % 200}": b"%d" % n for n in range(1800, 2000)}
    await eventually(lambda: view.synced and mirror.values == expected)


async def test_store_of_an_earlier_time_that_was_written_to_is_noticed(
    tmp_path, server, bus, write, spawn, eventually
):
    mirror = Mirror()
    view = View(bus, DATA, ">", mirror)
    stop = spawn(view.run())
    await write(foo__a=b"1")
    await eventually(lambda: view.synced)
    await server.__aexit__()
    shutil.copytree(tmp_path / "nats" / "store", tmp_path / "backup")
    await server.__aenter__()
    await write(foo__a=b"2", foo__b=b"3", foo__c=b"4")
    await eventually(lambda: mirror.values == {"foo.a": b"2", "foo.b": b"3", "foo.c": b"4"})
    await stop()
    revision = view.revision
    await server.__aexit__()
    shutil.rmtree(tmp_path / "nats" / "store")
    shutil.move(tmp_path / "backup", tmp_path / "nats" / "store")
    await server.__aenter__()
    await write(foo__d=b"5", foo__e=b"6", foo__f=b"7", foo__g=b"8", foo__c=b"9")
    spawn(view.run())
    expected = {"foo.a": b"1", "foo.d": b"5", "foo.e": b"6", "foo.f": b"7", "foo.g": b"8", "foo.c": b"9"}
    await eventually(lambda: view.synced and mirror.values == expected)
    assert view.revision > revision
    assert view.resyncs == 2


@pytest.fixture
async def left(write, bus, spawn, eventually):
    """What a view that stopped had told, and its position; the bus went on since."""
    mirror = Mirror()
    view = View(bus, DATA, ">", mirror)
    stop = spawn(view.run())
    await write(foo__a=b"1", foo__b=b"2", foo__c=b"3")
    await eventually(lambda: view.synced and len(mirror.values) == 3)
    await stop()
    await write(foo__a=b"4", foo__b=None, foo__d=b"5")
    mirror.changes.clear()
    return mirror, view.position


async def test_another_view_goes_on_from_a_position(left, bus, spawn, eventually):
    mirror, position = left
    view = View(bus, DATA, ">", mirror, position)
    spawn(view.run())
    await eventually(lambda: view.synced)
    assert mirror.values == {"foo.a": b"4", "foo.c": b"3", "foo.d": b"5"}
    assert [change.key for change in mirror.changes] == ["foo.a", "foo.b", "foo.d"]
    assert (view.resyncs, view.resumes) == (0, 1)


@pytest.mark.parametrize("hours_ago", [2, -2])
async def test_a_position_of_another_time_is_not_used(left, bus, spawn, eventually, hours_ago):
    """Deletions are told for an hour, and a clock that was set back says nothing."""
    mirror, position = left
    heard_at = position.heard_at - 3600 * hours_ago
    view = View(bus, DATA, ">", mirror, position._replace(heard_at=heard_at))
    spawn(view.run())
    await eventually(lambda: view.synced)
    assert mirror.values == {"foo.a": b"4", "foo.c": b"3", "foo.d": b"5"}
    assert (view.resyncs, view.resumes) == (1, 0)


async def test_a_position_in_another_past_is_not_used(left, bus, spawn, eventually):
    mirror, position = left
    told = tuple((revision, str(int(time) + 1)) for revision, time in position.told)
    mirror.values["foo.never"] = b"there"
    view = View(bus, DATA, ">", mirror, position._replace(told=told))
    spawn(view.run())
    await eventually(lambda: view.synced)
    assert mirror.values == {"foo.a": b"4", "foo.c": b"3", "foo.d": b"5"}
    assert (view.resyncs, view.resumes) == (1, 1)


async def test_there_is_no_position_before_all_was_read(bus, follow, write, eventually):
    view = View(bus, DATA, ">", Mirror())
    assert view.position is None
    await write(foo__a=b"1")
    view, mirror = follow()
    positions = []
    mirror.done = lambda: positions.append(view.revision)
    tell = mirror.change
    mirror.change = lambda change: (tell(change), positions.append(view.position))
    await eventually(lambda: view.synced)
    assert positions[0] is None
    assert view.position.revision >= 1


async def test_all_is_told_sorted_by_key_and_the_last_change_of_a_key_last(
    bus, follow, write, eventually, monkeypatch
):
    monkeypatch.setattr("caterva2.bus.view.HELD", 7)
    keys = [f"k{number * 7 % 20:02}" for number in range(20)]
    await write(**{f"foo__{key}": b"1" for key in keys})
    view, mirror = follow()
    await eventually(lambda: view.synced)
    told = [change.key for change in mirror.changes]
    assert set(told) == {f"foo.{key}" for key in keys}
    assert told != sorted(told)
    for begin in range(0, 20, 7):
        assert told[begin : begin + 7] == sorted(told[begin : begin + 7])


async def test_others_have_their_turn_while_much_is_told(write, bus, spawn, eventually):
    """Counted in what is told between two turns, whatever the machine takes for it."""
    await write(**{f"foo__{number:03}": b"1" for number in range(100)})
    most = told = 0

    class Slow(Mirror):
        def change(self, change):
            nonlocal told
            told += 1
            ends = time.monotonic() + TURN_S
            while time.monotonic() < ends:
                pass
            super().change(change)

    async def others():
        nonlocal most, told
        while True:
            most, told = max(most, told), 0
            await asyncio.sleep(0)

    mirror = Slow()
    spawn(others())
    spawn(View(bus, DATA, ">", mirror).run())
    await eventually(lambda: len(mirror.values) == 100)
    assert most < 5
