import json
import math

import pytest
from structlog.testing import capture_logs

from caterva2.bus.buckets import SOURCES, Bucket
from caterva2.bus.records import SourceBeat
from caterva2.bus.sources import SourceAnnouncer, SourcesView
from caterva2.errors import Corrupt


@pytest.fixture
def source(connect_bus, spawn):
    """Announce a source; its beat may be replaced, and it can be stopped."""

    async def source(instance, roots=("foo",), load=0.5):
        beats = [SourceBeat(instance, f"http://{instance}:8002", tuple(roots), load)]
        announcer = SourceAnnouncer(await connect_bus(), lambda: beats[0])
        return beats, spawn(announcer.run())

    return source


@pytest.fixture
def watch(connect_bus, spawn):
    async def watch(instance="me"):
        view = SourcesView(await connect_bus(), instance)
        return view, spawn(view.run())

    return watch


def test_a_beat_is_what_it_was():
    beat = SourceBeat("one", "http://h:1", ("foo", "bär"), 0.25)
    assert SourceBeat.decode(beat.encode()) == beat


@pytest.mark.parametrize(
    "change",
    [
        {"roots": "foo"},
        {"roots": [1]},
        {"load": -1},
        {"load": "1"},
        {"load": True},
        {"url": "ftp://h"},
        {"url": None},
        {"url": "http://"},
        {"url": "http://[::1"},
        {"url": "http://h:99999"},
        {"instance": 3},
    ],
)
def test_other_values_are_refused(change):
    raw = {"instance": "one", "url": "http://h:1", "roots": ["foo"], "load": 0.0}
    assert SourceBeat.decode(json.dumps(raw).encode()).load == 0
    with pytest.raises(Corrupt):
        SourceBeat.decode(json.dumps(raw | change).encode())
    with pytest.raises(Corrupt):
        SourceBeat.decode(json.dumps(raw | {"load": math.inf}).encode())


async def test_sources_are_known_by_root_but_not_oneself(source, watch, eventually):
    view, _ = await watch("two")
    await source("one", ["foo", "bar"])
    await source("two", ["foo"])
    await source("three", ["bar"], load=3)
    await eventually(lambda: len(view.of("bar")) == 2)
    assert [beat.instance for beat in view.of("foo")] == ["one"]
    assert {beat.instance: beat.load for beat in view.of("bar")} == {"one": 0.5, "three": 3.0}
    assert view.of("nothing") == []


async def test_what_they_say_changes(source, watch, eventually):
    view, _ = await watch()
    beats, _ = await source("one")
    await eventually(lambda: view.of("foo"))
    beats[0] = SourceBeat("one", "http://other:1", ("bar",), 7.0)
    await eventually(lambda: view.of("bar") == beats)
    assert view.of("foo") == []


async def test_who_stops_is_gone_at_once_who_is_silent_soon(source, watch, eventually, bus, clock):
    view, _ = await watch()
    _, stop = await source("one")
    async with bus.session() as client:
        silent = SourceBeat("two", "http://two:8002", ("foo",), 0.0)
        await Bucket(client, SOURCES).put("two", silent.encode())
    await eventually(lambda: len(view.of("foo")) == 2)
    began = clock()
    await stop()
    await eventually(lambda: view.of("foo") == [silent])
    assert clock() - began < 2
    await eventually(lambda: view.of("foo") == [])
    assert clock() - began > 3


async def test_malformed_ones_are_skipped(source, watch, eventually, bus):
    with capture_logs() as logs:
        view, _ = await watch()
        async with bus.session() as client:
            bucket = Bucket(client, SOURCES)
            await bucket.put("junk", b"\xff{")
            await bucket.put("other", SourceBeat("one", "http://h:1", ("foo",), 0.0).encode())
        await source("one")
        await eventually(lambda: view.of("foo"))
    assert [beat.instance for beat in view.of("foo")] == ["one"]
    assert {entry["key"] for entry in logs if "malformed source" in entry["event"]} == {"junk", "other"}


async def test_a_bucket_that_is_lost_takes_no_source_away(source, watch, eventually, bus, clock):
    view, _ = await watch()
    await source("one")
    await eventually(lambda: view.of("foo"))
    async with bus.session() as client:
        jetstream = client.jetstream()
        await jetstream.delete_stream(f"KV_{SOURCES}")
    began = clock()
    seen = []
    await eventually(lambda: seen.append(bool(view.of("foo"))) or clock() - began > 6)
    assert all(seen), "the bucket was made again, and the source went on"
