import asyncio
import os
import signal

import pytest
from structlog.testing import capture_logs

from caterva2.bus.buckets import ALIVE, DATA, ROOTS, Bucket
from caterva2.bus.keys import data_key
from caterva2.bus.records import Claim, Heartbeat, encode_entry
from caterva2.model.catalogue import Catalogue


@pytest.fixture
async def write(bus):
    """Write to the bus as a publisher would, or as none should."""

    async def write(bucket, key, value):
        async with bus.session() as client:
            target = Bucket(client, bucket)
            return await (target.delete(key) if value is None else target.put(key, value))

    return write


async def test_tells_roots_datasets_and_their_changes(announce, observe, make_entry, agree, eventually):
    mine = await announce(entries={"a.b2nd": make_entry(), "dir/b.b2nd": make_entry()})
    _, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    root = seen.root("foo")
    assert (root.url, root.title, root.instance, root.state) == (
        "http://one:8001",
        "A title",
        "one",
        "online",
    )

    events = []
    seen.listen(lambda event, _: events.append((event.kind, event.path)))
    changed = make_entry()
    mine.catalogue.apply("foo", "a.b2nd", changed)
    mine.catalogue.apply("foo", "dir/b.b2nd", None)
    mine.catalogue.apply("foo", "c.b2nd", make_entry())
    await eventually(lambda: agree(seen, mine.catalogue))
    assert sorted(events) == [
        ("changed", "foo/a.b2nd"),
        ("created", "foo/c.b2nd"),
        ("deleted", "foo/dir/b.b2nd"),
    ]


async def test_catalogue_from_disk_loses_what_is_gone_and_keeps_the_rest(
    announce, observe, make_entry, agree, eventually
):
    kept, old, new = make_entry(), make_entry(), make_entry()
    mine = await announce(entries={"kept": kept, "changed": new})
    loaded = Catalogue()
    loaded.set_root("foo", instance="one")
    for name, entry in {"kept": kept, "changed": old, "gone": make_entry()}.items():
        loaded.apply("foo", name, entry)
    events = []
    loaded.listen(lambda event, _: events.append((event.kind, event.path)))
    await observe(loaded)
    await eventually(lambda: agree(loaded, mine.catalogue))
    assert sorted(events) == [("changed", "foo/changed"), ("deleted", "foo/gone"), ("online", "foo")]


async def test_bus_that_lost_everything_empties_nothing(observe, make_entry, eventually):
    loaded = Catalogue()
    loaded.set_root("foo", instance="one")
    loaded.apply("foo", "a", make_entry())
    view, _ = await observe(loaded)
    await eventually(lambda: view.synced)
    assert list(loaded.root("foo").entries) == ["a"]
    await eventually(lambda: loaded.root("foo").state == "offline", 7)
    assert list(loaded.root("foo").entries) == ["a"]
    assert not loaded.root("foo").fresh


async def test_deletion_of_an_earlier_time_waits_for_the_publisher(
    announce, observe, make_entry, write, agree, eventually
):
    """A store that was rolled back has the deletion of a dataset that is there again."""
    await write(DATA, data_key("foo", "a"), encode_entry(make_entry()))
    await write(DATA, data_key("foo", "a"), None)
    loaded = Catalogue()
    loaded.set_root("foo", instance="one")
    loaded.apply("foo", "a", entry := make_entry())
    events = []
    loaded.listen(lambda event, _: events.append((event.kind, event.path)))
    view, _ = await observe(loaded)
    await eventually(lambda: view.synced)
    mine = await announce(entries={"a": entry})
    await eventually(lambda: agree(loaded, mine.catalogue))
    assert events == [("online", "foo")]


async def test_cut_off_is_unknown_and_unverified_and_comes_back(
    server, announce, observe, make_entry, agree, eventually
):
    mine = await announce(entries={"a": make_entry()})
    _, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    kinds = []
    seen.listen(lambda event, _: kinds.append(event.kind))
    os.kill(server.pid, signal.SIGSTOP)  # silent, as behind a cut cable
    try:
        await eventually(lambda: not seen.root("foo").fresh, 5)
        await eventually(lambda: seen.root("foo").state == "unknown", 5)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert list(seen.root("foo").entries) == ["a"]
    await eventually(lambda: agree(seen, mine.catalogue) and seen.root("foo").state == "online")
    assert "offline" not in kinds


async def test_server_that_restarts_is_no_event(server, announce, observe, make_entry, agree, eventually):
    mine = await announce(entries={"a": make_entry()})
    view, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    kinds = []
    seen.listen(lambda event, _: kinds.append(event.kind))
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: not view.synced)
    mine.catalogue.apply("foo", "b", make_entry())
    await eventually(lambda: view.synced and agree(seen, mine.catalogue))
    assert kinds == ["created"]


async def test_malformed_values_are_skipped_and_said(announce, observe, make_entry, write, agree, eventually):
    with capture_logs() as logs:
        _, seen = await observe()
        await write(DATA, "other.x", b"not JSON")
        await write(DATA, "other.=zz", b"{}")
        await write(ROOTS, "other", b"[]")
        await write(ALIVE, "other", b'{"instance": 1}')
        await write(ALIVE, "=2F", b"")
        await write(ROOTS, "x.y", b"{}")
        mine = await announce(entries={"a": make_entry()})
        await eventually(lambda: agree(seen, mine.catalogue))
    assert list(seen.roots) == ["foo"]
    skipped = {entry["key"] for entry in logs if entry["event"].startswith("skipped a malformed")}
    assert skipped == {"other.x", "other.=zz", "other", "=2F", "x.y"}


async def test_datasets_wait_for_their_root(observe, make_entry, write, eventually):
    view, seen = await observe()
    entry = make_entry()
    revision = await write(DATA, data_key("foo", "a"), encode_entry(entry))
    await eventually(lambda: view.data.revision >= revision)
    assert not seen.roots
    await write(ROOTS, "foo", Claim("one", "http://one").encode())
    await eventually(lambda: "foo" in seen.roots)
    assert seen.root("foo").entries == {"a": entry}


async def test_root_is_forgotten_when_its_claim_is_deleted_and_only_then(
    observe, make_entry, write, eventually
):
    _, seen = await observe()
    entry = make_entry()
    await write(ROOTS, "foo", Claim("one", "http://one").encode())
    await write(DATA, data_key("foo", "a"), encode_entry(entry))
    await eventually(lambda: "foo" in seen.roots and seen.root("foo").entries)
    await write(ROOTS, "foo", None)
    await eventually(lambda: not seen.roots)
    await write(ROOTS, "foo", Claim("two", "http://two").encode())
    await eventually(lambda: "foo" in seen.roots)
    assert seen.root("foo").entries == {"a": entry}


class Publisher:
    """Writes what a test wants it to, in place of an announcer."""

    def __init__(self, write, view):
        self._write, self._view, self.revision = write, view, 0

    async def claim(self, instance="one", **members):
        written = await self._write(ROOTS, "foo", Claim(instance, "http://one", **members).encode())
        async with asyncio.timeout(5):
            while self._view.roots.revision < written:
                await asyncio.sleep(0.001)

    async def put(self, name, entry):
        self.revision = await self._write(DATA, data_key("foo", name), encode_entry(entry))

    async def beat(self, digest, count, *, instance="one", revision=None, epoch=None, reset=0, age_s=0.0):
        revision = self.revision if revision is None else revision
        epoch = epoch or self._view.data.epoch
        beat = Heartbeat(instance, "http://one", count, digest, epoch, revision, reset, age_s)
        written = await self._write(ALIVE, "foo", beat.encode())
        async with asyncio.timeout(5):
            while self._view.alive.revision < written:
                await asyncio.sleep(0.001)


@pytest.fixture
async def fake(observe, write, eventually):
    view, seen = await observe()
    await eventually(lambda: view.synced)
    publisher = Publisher(write, view)
    await publisher.claim()
    await eventually(lambda: "foo" in seen.roots)
    return publisher, view, seen


async def test_one_heartbeat_that_disagrees_is_no_doubt_two_are(fake, make_entry, eventually):
    publisher, view, seen = fake
    await publisher.put("a", make_entry())
    await eventually(lambda: seen.root("foo").entries)
    good = seen.root("foo").digest
    await publisher.beat(good, 1)
    assert seen.root("foo").fresh
    await publisher.beat("f" * 32, 1)
    assert seen.root("foo").fresh
    assert view.data.resyncs == 1
    await publisher.beat(good, 2)  # the count is compared too
    assert not seen.root("foo").fresh
    await eventually(lambda: view.data.resyncs == 2 and view.synced)
    await publisher.beat(good, 1)
    assert seen.root("foo").fresh


async def test_heartbeat_of_what_was_not_seen_yet_waits_for_it(fake, make_entry, eventually):
    publisher, view, seen = fake
    entry = make_entry()
    model = Catalogue()
    model.set_root("foo")
    model.apply("foo", "a", entry)
    await publisher.beat(model.root("foo").digest, 1, revision=view.data.revision + 1)
    await publisher.beat(model.root("foo").digest, 1, revision=view.data.revision + 1)
    assert not seen.root("foo").fresh
    await publisher.put("a", entry)
    await eventually(lambda: seen.root("foo").fresh)
    assert view.data.resyncs == 1


async def test_heartbeat_of_an_earlier_revision_is_compared_with_what_was_then(fake, make_entry, eventually):
    publisher, _, seen = fake
    await publisher.put("a", make_entry())
    await eventually(lambda: len(seen.root("foo").entries) == 1)
    digest, revision = seen.root("foo").digest, publisher.revision
    await publisher.put("b", make_entry())
    await eventually(lambda: len(seen.root("foo").entries) == 2)
    await publisher.beat("0" * 32, 1, revision=revision)
    assert not seen.root("foo").fresh
    await publisher.beat(digest, 1, revision=revision)
    assert seen.root("foo").fresh


async def test_heartbeat_of_another_instance_counts_for_nothing(fake, make_entry):
    publisher, _, seen = fake
    await publisher.beat(seen.root("foo").digest, 0, instance="two")
    assert seen.root("foo").state == "unknown"
    assert not seen.root("foo").fresh
    await publisher.beat(seen.root("foo").digest, 0)
    assert seen.root("foo").state == "online"


async def test_publisher_with_changes_to_announce_stays_online(fake):
    publisher, view, seen = fake
    await publisher.beat(None, 0)
    await publisher.beat(None, 0)
    assert seen.root("foo").state == "online"
    assert not seen.root("foo").fresh
    assert view.data.resyncs == 1


async def test_never_goes_back_to_an_older_generation(fake, make_entry, eventually):
    publisher, view, seen = fake
    old, new = make_entry(), make_entry()
    await publisher.put("a", new)
    await publisher.put("a", old)
    await eventually(lambda: view.data.revision >= publisher.revision)
    assert seen.root("foo").entries == {"a": new}


async def test_a_reset_takes_what_the_owner_has_once_all_of_it_is_there(fake, make_entry, eventually):
    publisher, view, seen = fake
    old, new, other = make_entry(), make_entry(), make_entry()
    await publisher.put("a", new)
    await eventually(lambda: view.data.revision >= publisher.revision)
    await publisher.beat(seen.root("foo").digest, 1)
    assert seen.root("foo").fresh
    await publisher.put("a", old)
    await eventually(lambda: seen.root("foo").behind)
    events = []
    seen.listen(lambda event, _: events.append((event.kind, event.path)))
    await publisher.beat(None, 1, reset=1000)  # it is about to announce more
    assert seen.root("foo").entries == {"a": new}
    await publisher.put("b", other)
    model = Catalogue()
    model.set_root("foo")
    model.apply("foo", "a", old)
    model.apply("foo", "b", other)
    await publisher.beat(model.root("foo").digest, 2, reset=1000)
    await eventually(lambda: seen.root("foo").entries == {"a": old, "b": other})
    await publisher.beat(model.root("foo").digest, 2, reset=1000)
    assert seen.root("foo").fresh
    assert (seen.root("foo").reset_at, seen.root("foo").behind) == (1000, {})
    assert events == [("created", "foo/b"), ("reset", "foo"), ("changed", "foo/a")]


async def test_a_reset_that_is_older_or_known_already_changes_nothing(fake, make_entry, eventually):
    publisher, view, seen = fake
    old, new = make_entry(), make_entry()
    await publisher.put("a", new)
    await eventually(lambda: view.data.revision >= publisher.revision)
    await publisher.beat(seen.root("foo").digest, 1, reset=1000)
    assert seen.root("foo").reset_at == 1000
    await publisher.put("a", old)
    await eventually(lambda: seen.root("foo").behind)
    model = Catalogue()
    model.set_root("foo")
    model.apply("foo", "a", old)
    for reset in (0, 999, 1000):
        await publisher.beat(model.root("foo").digest, 1, reset=reset)
    assert seen.root("foo").entries == {"a": new}
    assert seen.root("foo").reset_at == 1000
    assert not seen.root("foo").fresh


async def test_what_a_tier_tells_is_no_fresher_than_it_is_there(fake, make_entry, eventually):
    publisher, _, seen = fake
    await publisher.claim("tier", origin="one", via=("tier",))
    await publisher.put("a", make_entry())
    await eventually(lambda: seen.root("foo").entries)
    root = seen.root("foo")
    await publisher.beat(root.digest, 1, instance="tier")
    assert root.freshness.word == "fresh"
    await publisher.beat(root.digest, 1, instance="tier", age_s=100.0)
    assert (root.state, root.freshness.word) == ("online", "unverified")
    assert root.freshness.age_s == pytest.approx(100, abs=2)
    await publisher.beat("f" * 32, 1, instance="tier", age_s=200.0)  # of what is not the same it says nothing
    assert root.freshness.age_s == pytest.approx(100, abs=2)
    await publisher.beat(root.digest, 1, instance="tier")
    assert root.freshness.word == "fresh"


async def test_what_was_never_confirmed_here_is_known_with_its_age(fake):
    publisher, _, seen = fake
    assert seen.root("foo").confirmed_at is None
    await publisher.beat(seen.root("foo").digest, 0, age_s=3600.0)
    assert seen.root("foo").freshness.age_s == pytest.approx(3600, abs=2)


async def test_a_root_that_comes_from_here_is_not_followed(observe, write, make_entry, eventually):
    view, seen = await observe(instance="me")
    await eventually(lambda: view.synced)
    publisher = Publisher(write, view)
    await publisher.claim("one")
    await publisher.put("a", entry := make_entry())
    await eventually(lambda: seen.root("foo").entries)
    await publisher.beat(digest := seen.root("foo").digest, 1)
    assert seen.root("foo").fresh
    with capture_logs() as logs:
        for _ in range(2):
            await publisher.claim("tier", origin="one", via=("me", "tier"))
        await publisher.put("a", make_entry())
        await publisher.put("b", make_entry())
        await eventually(lambda: view.data.revision >= publisher.revision)
        await publisher.beat(digest, 1, instance="tier")
    assert [entry["event"] for entry in logs].count("root comes from here, and is not followed") == 1
    assert (view.loops, view.position) == ({"foo"}, None)
    assert (seen.root("foo").entries, seen.root("foo").instance) == ({"a": entry}, "one")
    await eventually(lambda: not seen.root("foo").fresh)
    await publisher.claim("one")
    assert view.loops == set()
    await eventually(lambda: set(seen.root("foo").entries) == {"a", "b"})


async def test_a_root_that_came_back_before_it_was_known_is_not_there(observe, write, eventually, make_entry):
    view, seen = await observe(instance="me")
    await eventually(lambda: view.synced)
    publisher = Publisher(write, view)
    await publisher.put("a", make_entry())
    await publisher.claim("tier", origin="one", via=("me", "tier"))
    await eventually(lambda: view.data.revision >= publisher.revision)
    assert (seen.roots, view.loops) == ({}, {"foo"})
