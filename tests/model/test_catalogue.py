import math
import random

import pytest

from caterva2.errors import NotFound
from caterva2.model import root as module
from caterva2.model.catalogue import EVENTS_KEPT, Catalogue
from caterva2.model.path import DatasetPath, parse_path
from caterva2.model.root import Entry, Freshness, Root


def entry(generation=1, size=10, etag=None):
    return Entry(etag or f"etag{generation}", generation, size, "file", 0.0)


@pytest.fixture
def catalogue():
    made = Catalogue()
    made.set_root("foo", url="http://x")
    return made


def test_entries_by_path(catalogue):
    catalogue.apply("foo", "b/x", entry(size=5))
    catalogue.apply("foo", "a", entry(size=7))
    catalogue.apply("foo", "b-x", entry(size=1))
    assert catalogue.entry(parse_path("foo/a")).size == 7
    assert catalogue.root("foo").nbytes == 13
    assert [name for name, _ in catalogue.below(parse_path("foo", allow_root=True))] == ["a", "b-x", "b/x"]
    assert [name for name, _ in catalogue.below(parse_path("foo/b"))] == ["b/x"]
    assert [name for name, _ in catalogue.below(parse_path("foo/a"))] == ["a"]
    for wrong in ("foo/c", "bar/a"):
        with pytest.raises(NotFound):
            catalogue.entry(parse_path(wrong))
        with pytest.raises(NotFound):
            list(catalogue.below(parse_path(wrong)))


def test_nobody_goes_backwards(catalogue):
    assert catalogue.apply("foo", "a", entry(5))
    assert not catalogue.apply("foo", "a", entry(4))
    assert not catalogue.apply("foo", "a", entry(5))
    assert catalogue.entry(parse_path("foo/a")).generation == 5
    assert catalogue.apply("foo", "a", entry(6))
    assert catalogue.apply("foo", "a", None)
    assert not catalogue.apply("foo", "a", None)


def test_what_was_deleted_does_not_come_back_older(catalogue):
    catalogue.apply("foo", "a", entry(5))
    catalogue.apply("foo", "a", None)
    assert not catalogue.apply("foo", "a", entry(4))
    assert catalogue.root("foo").entries == {}
    assert catalogue.root("foo").behind == {"a": entry(4)}
    assert catalogue.apply("foo", "a", entry(5))  # deleted by mistake, and put back
    assert catalogue.root("foo").behind == catalogue.root("foo").deleted == {}


def test_only_so_many_deletions_are_remembered(catalogue, monkeypatch):
    monkeypatch.setattr(module, "DELETED_KEPT", 3)
    for number in range(5):
        catalogue.apply("foo", f"{number}", entry(5))
        catalogue.apply("foo", f"{number}", None)
    assert list(catalogue.root("foo").deleted) == ["2", "3", "4"]


def test_what_is_ignored_is_taken_by_a_reset(catalogue):
    for name, generation in (("a", 5), ("b", 5), ("gone", 5)):
        catalogue.apply("foo", name, entry(generation))
    catalogue.apply("foo", "gone", None)
    catalogue.confirm("foo")
    for name in ("a", "gone"):
        catalogue.apply("foo", name, entry(3))
    catalogue.apply("foo", "b", entry(4))
    catalogue.apply("foo", "b", entry(6))
    assert set(catalogue.root("foo").behind) == {"a", "gone"}
    start = catalogue.last_event_id
    catalogue.reset("foo", 1000)
    assert catalogue.root("foo").entries == {"a": entry(3), "b": entry(6), "gone": entry(3)}
    assert catalogue.root("foo").behind == {}
    assert catalogue.root("foo").reset_at == 1000
    events = [(event.kind, event.path) for event in catalogue.events_after(start)]
    assert events == [("reset", "foo"), ("changed", "foo/a"), ("created", "foo/gone")]
    assert not catalogue.apply("foo", "a", entry(2))


def test_a_root_that_nobody_knew_is_reset_without_an_event(catalogue):
    start = catalogue.last_event_id
    catalogue.reset("foo", 1000)
    assert catalogue.events_after(start) == []


def test_the_digest_does_not_depend_on_the_order():
    digests = []
    for order in (("a", "b", "c"), ("c", "a", "b")):
        made = Catalogue()
        made.set_root("foo")
        made.apply("foo", "gone", entry())
        for name in order:
            made.apply("foo", name, entry(etag=name))
        made.apply("foo", "gone", None)
        digests.append(made.root("foo").digest)
    assert digests[0] == digests[1] != Catalogue().set_root("foo").digest


def test_differences_are_events(catalogue):
    heard = []
    stop = catalogue.listen(lambda event, entry: heard.append((event.kind, event.path, event.generation)))
    catalogue.set_state("foo", "online")
    catalogue.set_state("foo", "online")
    catalogue.apply("foo", "a", entry(1))
    catalogue.apply("foo", "a", entry(2))
    catalogue.set_state("foo", "unknown")
    catalogue.remove_root("foo")
    stop()
    catalogue.set_root("bar")
    catalogue.set_state("bar", "online")
    assert heard == [
        ("online", "foo", None),
        ("created", "foo/a", 1),
        ("changed", "foo/a", 2),
        ("deleted", "foo/a", None),
        ("offline", "foo", None),
    ]
    with pytest.raises(NotFound):
        catalogue.root("foo")


def test_events_resume(catalogue):
    start = catalogue.last_event_id
    for generation in range(1, 4):
        catalogue.apply("foo", "a", entry(generation))
    assert [event.generation for event in catalogue.events_after(start)] == [1, 2, 3]
    second = catalogue.events_after(start)[1]
    assert [event.generation for event in catalogue.events_after(second.id)] == [3]
    assert catalogue.events_after(catalogue.last_event_id) == catalogue.events_after(None) == []
    name = start.rpartition("-")[0]
    for unknown in ("", "x", "x-1", f"{name}-4", f"{name}-²", f"{name}--1"):
        assert catalogue.events_after(unknown) is None


def test_events_too_old_are_not_resumed(catalogue):
    start = catalogue.last_event_id
    for generation in range(EVENTS_KEPT + 1):
        catalogue.apply("foo", "a", entry(generation + 1))
    assert catalogue.events_after(start) is None


def test_freshness(catalogue):
    root = catalogue.root("foo")
    assert root.freshness == Freshness(False, math.inf)
    catalogue.confirm("foo")
    assert root.freshness == Freshness(True, 0.0)
    assert root.freshness.word == "fresh"
    catalogue.doubt("foo")
    assert root.freshness.word == "unverified"
    assert 0 <= root.freshness.age_s < 60
    catalogue.doubt("foo", confirmed_at=0.0)
    assert root.freshness.age_s > 1e9


def test_names_stay_sorted_whatever_comes_and_goes() -> None:
    rng, root = random.Random(1), Root("foo")
    for _ in range(300):
        name = str(rng.randrange(40))
        root.put(name, None if rng.random() < 0.4 else entry(rng.randrange(1 << 40)))
        if rng.random() < 0.3:
            assert root.names == sorted(root.entries)
    names = root.names
    root.put(names[0], entry(1 << 41))
    assert root.names is names  # changed, but neither came nor went
    root.put("a name", entry())
    assert root.names is not names
    assert root.names == sorted(root.entries)


def test_below_finds_the_same_as_a_look_at_all() -> None:
    catalogue = Catalogue()
    catalogue.set_root("foo")
    for name in ("a", "a/b", "a/b/c", "a.b", "a0", "a-b", "ab/c", "é/x", "a/é", "a/\U0010ffff"):
        catalogue.apply("foo", name, entry())
    for below in ("a", "a/b", "ab", "é"):
        found = [name for name, _ in catalogue.below(DatasetPath("foo", below))]
        wanted = [n for n in catalogue.root("foo").entries if n == below or n.startswith(f"{below}/")]
        assert found == sorted(wanted)
