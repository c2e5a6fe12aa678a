import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from caterva2.bus import announcement as announcement_module
from caterva2.bus.announcer import OURS
from caterva2.bus.buckets import DATA, ROOTS, Bucket
from caterva2.bus.keys import data_key
from caterva2.bus.records import Claim, decode_entry, encode_entry
from caterva2.model.path import DatasetPath

PUBLISHER = """
import asyncio, json, sys
from caterva2.bus.announcer import Announcer
from caterva2.bus.connection import Bus, BusAddress
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Entry

address = BusAddress.from_json(json.loads(sys.argv[1]))

async def locate():
    return address

async def main():
    catalogue = Catalogue()
    catalogue.set_root("foo")
    catalogue.apply("foo", "a", Entry("a" * 32, 1, 10, "file", 1.5))
    async with Bus(locate) as bus:
        await Announcer(bus, catalogue, {"foo": ""}, instance="old", url="http://old").run()

asyncio.run(main())
"""


@pytest.fixture
def other_publisher(server):
    """A publisher in a process of its own."""
    address = json.dumps(server.address.to_json())
    with subprocess.Popen([sys.executable, "-c", PUBLISHER, address], stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


async def keys_of(bus, root="foo"):
    """Read the names of the datasets that the bus has, without a view."""
    async with bus.session() as client:
        found = await client.jetstream().stream_info(f"KV_{DATA}", subjects_filter=f"$KV.{DATA}.{root}.>")
        prefix = len(f"$KV.{DATA}.")
        keys = [subject[prefix:] for subject in found.state.subjects or {}]
        stored = await asyncio.gather(*(Bucket(client, DATA).get(key) for key in keys))
        return {key for key, value in zip(keys, stored, strict=True) if value.value is not None}


async def test_makes_the_bus_equal_to_the_catalogue(bus, announce, make_entry, eventually):
    async with bus.session() as client:
        for name in ("a", "left/over"):
            await Bucket(client, DATA).put(data_key("foo", name), encode_entry(make_entry()))
        await Bucket(client, DATA).put("foo.=zz", b"of nobody")
        await Bucket(client, DATA).put("foo.broken", b"not JSON")
        await Bucket(client, DATA).put("bar.other", b"somebody else's")
    mine = await announce(entries={"a": make_entry(), "b": make_entry(), "broken": make_entry()})
    await eventually(lambda: mine.announcer.in_sync)
    assert await keys_of(bus) == {"foo.a", "foo.b", "foo.broken"}
    assert await keys_of(bus, "bar") == {"bar.other"}


async def test_what_comes_back_as_it_was_put_is_known(bus, announce, make_entry, eventually, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        announcement_module, "decode_entry", lambda value: parsed.append(value) or decode_entry(value)
    )
    mine = await announce(entries={f"{n}": make_entry() for n in range(20)})
    await eventually(lambda: mine.announcer.in_sync)
    assert not parsed
    theirs = encode_entry(make_entry())
    async with bus.session() as client:
        await Bucket(client, DATA).put(data_key("foo", "0"), theirs)
    await eventually(lambda: parsed == [theirs])
    await eventually(lambda: mine.announcer.in_sync)


async def test_touched_file_is_announced_though_its_version_stays(
    announce, observe, agree, make_entry, eventually
):
    entry = make_entry()
    mine = await announce(entries={"a": entry})
    _, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    mine.catalogue.apply("foo", "a", replace(entry, mtime=2.5))
    await eventually(lambda: seen.root("foo").entries["a"].mtime == 2.5)


async def test_what_others_write_is_repaired(bus, announce, observe, make_entry, agree, eventually):
    mine = await announce(entries={"a": make_entry(), "b": make_entry()})
    _, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    async with bus.session() as client:
        bucket = Bucket(client, DATA)
        await bucket.delete(data_key("foo", "a"))
        await bucket.put(data_key("foo", "intruder"), encode_entry(make_entry()))
        await bucket.put(data_key("foo", "b"), b"not JSON")
    await eventually(lambda: mine.announcer.in_sync and agree(seen, mine.catalogue))
    assert await keys_of(bus) == {"foo.a", "foo.b"}


async def test_later_generation_on_the_bus_is_told(bus, announce, observe, make_entry, agree, eventually):
    mine_entry, later = make_entry(), make_entry()
    behind = []
    async with bus.session() as client:
        await Bucket(client, DATA).put(data_key("foo", "a"), encode_entry(later))
    _, seen = await observe()
    mine = await announce(
        entries={"a": mine_entry}, on_behind=lambda path, generation: behind.append((path, generation))
    )
    await eventually(lambda: behind)
    assert behind == [(DatasetPath("foo", "a"), later.generation)]
    mine.catalogue.apply("foo", "a", make_entry())  # as the publisher does then
    await eventually(lambda: agree(seen, mine.catalogue))


@pytest.mark.parametrize("ahead", [True, False])
async def test_what_is_missing_on_a_bus_that_is_ahead_is_told(bus, announce, make_entry, eventually, ahead):
    """Its deletion was seen, perhaps, when another had the root: it would be taken for old."""
    old, theirs, newest = make_entry(), make_entry(), make_entry()
    behind = []
    async with bus.session() as client:
        await Bucket(client, DATA).put(data_key("foo", "theirs"), encode_entry(theirs))
    mine = await announce(
        entries={"old": old} if ahead else {"old": old, "new": newest},
        on_behind=lambda path, generation: behind.append((path.name, generation)),
    )
    await eventually(lambda: mine.announcer.in_sync)
    assert behind == ([("old", theirs.generation)] if ahead else [])


async def test_what_is_coming_is_not_deleted(bus, announce, observe, make_entry, agree, eventually):
    """The publisher lost its state: it has not looked at all files yet."""
    theirs = {name: make_entry() for name in ("coming", "gone", "late")}
    async with bus.session() as client:
        for name, entry in theirs.items():
            await Bucket(client, DATA).put(data_key("foo", name), encode_entry(entry))
    coming = {"coming", "late"}
    mine = await announce(is_coming=lambda _, name: name in coming)
    _, seen = await observe()
    events = []
    seen.listen(lambda event, _: events.append((event.kind, event.path)))
    await eventually(lambda: "foo" in seen.roots and set(seen.root("foo").entries) == coming)
    assert not mine.announcer.in_sync
    mine.catalogue.apply("foo", "coming", make_entry())
    coming.clear()  # what was late does not come after all
    await eventually(lambda: mine.announcer.in_sync and agree(seen, mine.catalogue))
    assert ("deleted", "foo/coming") not in events
    assert ("deleted", "foo/late") in events


async def test_a_reset_is_carried_on_by_who_takes_the_root_over(bus, announce, eventually):
    async def reset_on_the_bus():
        async with bus.session() as client:
            return Claim.decode((await Bucket(client, ROOTS).get("foo")).value).reset

    first = await announce(instance="one", reset_of=lambda _root, _there: 1000)
    await eventually(lambda: first.announcer.claims["foo"] == OURS)
    assert await reset_on_the_bus() == 1000
    second = await announce(instance="two")
    await eventually(lambda: "belongs to" in second.announcer.claims["foo"])
    await first.stop()
    await eventually(lambda: second.announcer.claims["foo"] == OURS)
    assert await reset_on_the_bus() == 1000


async def test_what_comes_late_is_not_announced_before_it_is_later_than_what_is_there(
    bus, announce, observe, make_entry, agree, eventually
):
    """The publisher lost its state, and its clock is behind."""
    mine_entry, theirs = make_entry(), make_entry()
    behind, coming = [], {"a"}
    async with bus.session() as client:
        await Bucket(client, DATA).put(data_key("foo", "a"), encode_entry(theirs))
    mine = await announce(
        on_behind=lambda path, generation: behind.append((path.name, generation)),
        is_coming=lambda _, name: name in coming,
    )
    _, seen = await observe()
    await eventually(lambda: "foo" in seen.roots and seen.root("foo").entries)
    mine.catalogue.apply("foo", "a", mine_entry)
    await eventually(lambda: behind)
    assert behind == [("a", theirs.generation)]
    mine.catalogue.apply("foo", "a", make_entry())
    await eventually(lambda: agree(seen, mine.catalogue))
    assert seen.root("foo").behind == {}


async def test_wiped_store_is_filled_again_without_an_event(
    tmp_path, server, announce, observe, make_entry, agree, eventually
):
    mine = await announce(entries={f"d{n}": make_entry() for n in range(300)})
    view, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    events = []
    seen.listen(lambda event, _: events.append(event))
    epoch = view.data.epoch
    shutil.rmtree(tmp_path / "nats" / "store")
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: view.data.epoch != epoch and agree(seen, mine.catalogue))
    assert events == []
    _, fresh = await observe()
    await eventually(lambda: agree(fresh, mine.catalogue))


async def test_changes_made_while_cut_off_arrive(server, announce, observe, make_entry, agree, eventually):
    mine = await announce(entries={"a": make_entry(), "b": make_entry()})
    _, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    os.kill(server.pid, signal.SIGSTOP)
    mine.catalogue.apply("foo", "a", None)
    mine.catalogue.apply("foo", "c", make_entry())
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: agree(seen, mine.catalogue))
    assert set(seen.root("foo").entries) == {"b", "c"}


async def test_clean_stop_is_offline_at_once(announce, observe, make_entry, agree, eventually, clock):
    mine = await announce(entries={"a": make_entry()})
    _, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    began = clock()
    await mine.stop()
    await eventually(lambda: seen.root("foo").state == "offline", 1)
    assert clock() - began < 1
    assert not seen.root("foo").fresh
    assert list(seen.root("foo").entries) == ["a"]


async def test_restart_takes_its_own_root_at_once(announce, observe, make_entry, agree, eventually):
    entries = {"a": make_entry()}
    first = await announce(entries=entries)
    _, seen = await observe()
    await eventually(lambda: agree(seen, first.catalogue))
    await first.stop()
    entries["b"] = make_entry()
    second = await announce(entries=entries)
    await eventually(lambda: agree(seen, second.catalogue), 2)
    assert seen.root("foo").state == "online"


async def test_root_of_another_is_refused_while_that_one_lives(
    announce, observe, make_entry, agree, eventually
):
    first = await announce(instance="one", entries={"a": make_entry()})
    _, seen = await observe()
    await eventually(lambda: agree(seen, first.catalogue))
    with capture_logs() as logs:
        second = await announce(instance="two", entries={"b": make_entry()})
        await eventually(lambda: "belongs to another" in second.announcer.claims["foo"])
        assert (
            second.announcer.claims["foo"]
            == "root 'foo' belongs to another publisher, at http://one:8001, until that is gone"
        )
        first.catalogue.apply("foo", "c", make_entry())
        await eventually(lambda: agree(seen, first.catalogue))
    assert first.announcer.claims["foo"] == OURS
    assert seen.root("foo").url == "http://one:8001"
    assert set(seen.root("foo").entries) == {"a", "c"}
    assert [entry["event"] for entry in logs].count("root refused, will keep trying") == 1


async def test_of_two_at_the_same_time_one_gets_the_root(announce, eventually):
    both = await asyncio.gather(announce(instance="one"), announce(instance="two"))
    await eventually(lambda: all(one.announcer.claims["foo"] != "waiting" for one in both))
    assert [one.announcer.claims["foo"] for one in both].count(OURS) == 1


async def test_killed_publisher_is_offline_in_time_and_replaced(
    other_publisher, announce, observe, make_entry, agree, eventually, clock
):
    _, seen = await observe()
    await eventually(lambda: "foo" in seen.roots and seen.root("foo").fresh)
    assert seen.root("foo").url == "http://old"
    second = await announce(instance="new", entries={"b": make_entry()})
    await eventually(lambda: "belongs to" in second.announcer.claims["foo"])
    other_publisher.kill()
    began = clock()
    await eventually(lambda: seen.root("foo").state == "offline", 8)
    assert clock() - began <= 6
    await eventually(lambda: agree(seen, second.catalogue) and seen.root("foo").state == "online")
    assert clock() - began >= 4  # not before it was surely gone: four heartbeats are missing
    assert set(seen.root("foo").entries) == {"b"}


async def test_who_lost_its_root_stops(bus, announce, observe, make_entry, eventually):
    mine = await announce(entries={"a": make_entry()})
    await eventually(lambda: mine.announcer.in_sync)
    async with bus.session() as client:
        await Bucket(client, ROOTS).put("foo", b'{"instance": "other", "url": "http://other"}')
        await eventually(lambda: mine.announcer.claims["foo"] != OURS)
        await Bucket(client, DATA).put(data_key("foo", "theirs"), encode_entry(make_entry()))
    mine.catalogue.apply("foo", "b", make_entry())
    _, seen = await observe()
    await eventually(lambda: "foo" in seen.roots and set(seen.root("foo").entries) == {"a", "theirs"})


async def test_who_lost_its_root_waits_for_it(bus, announce, make_entry, eventually):
    mine = await announce(entries={"a": make_entry()})
    await eventually(lambda: mine.announcer.in_sync)
    async with bus.session() as client:
        await Bucket(client, ROOTS).put("foo", Claim("two", "http://two").encode())
    await eventually(lambda: mine.announcer.claims["foo"] != OURS)
    await eventually(lambda: mine.announcer.in_sync)  # nothing is heard of the other


async def test_view_equals_the_catalogue_after_any_changes(
    server, announce, observe, make_entry, agree, eventually
):
    seed = time.time_ns()
    print("seed", seed)
    rng = random.Random(seed)
    mine = await announce(entries={f"d{n}": make_entry() for n in range(50)})
    view, seen = await observe()
    for _ in range(40):
        for _ in range(rng.choice((1, 3, 60))):
            name = f"d{rng.randrange(80)}"
            mine.catalogue.apply("foo", name, make_entry() if rng.random() < 0.7 else None)
        match rng.randrange(8):
            case 0 if server.pid:
                with contextlib.suppress(ProcessLookupError):  # killed a moment ago
                    os.kill(server.pid, signal.SIGKILL)
            case 1:
                view.data.resync("a test wants it")
            case _:
                await asyncio.sleep(rng.choice((0, 0.001, 0.01)))
    await eventually(lambda: agree(seen, mine.catalogue))
    assert seen.root("foo").digest == mine.catalogue.root("foo").digest
    _, fresh = await observe()
    await eventually(lambda: agree(fresh, mine.catalogue))


async def test_ten_thousand_datasets_in_seconds(announce, observe, make_entry, agree, eventually, clock):
    view, seen = await observe()
    began = clock()
    mine = await announce(entries={f"dir{n % 100}/dataset-{n}.b2nd": make_entry() for n in range(10_000)})
    await eventually(lambda: agree(seen, mine.catalogue), 20)
    announced_s = clock() - began
    assert view.data.resyncs == 1  # no false alarm on the way

    latencies = []
    for _ in range(20):
        arrived = asyncio.Event()
        stop = seen.listen(lambda event, _: arrived.set())  # noqa: B023 - undone within the loop
        began = clock()
        mine.catalogue.apply("foo", "one more", make_entry())
        await asyncio.wait_for(arrived.wait(), 5)
        latencies.append(clock() - began)
        stop()
    print(
        f"10,000 announced and seen in {announced_s:.2f} s; put to seen {sorted(latencies)[10] * 1e3:.1f} ms"
    )
    assert sorted(latencies)[10] < 0.5
