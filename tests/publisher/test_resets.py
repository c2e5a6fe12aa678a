"""Names and generations that begin anew."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from caterva2.bus.records import Claim
from caterva2.model.catalogue import Catalogue
from caterva2.model.manifest import Head
from caterva2.publisher.resets import Resets, name_all_anew
from caterva2.publisher.scan import Scanner
from caterva2.publisher.versions import Taken, Versions


@pytest.fixture
def catalogue():
    catalogue = Catalogue()
    catalogue.set_root("foo")
    return catalogue


@pytest.fixture
def take_all(root, store):
    def run():
        versions = Versions("foo", str(root), store.origin, store.next_generation)
        for name, found in Scanner("foo", str(root)).scan().files.items():
            taken = versions.take(name, found, None)
            assert isinstance(taken, Taken)
            store.save("foo", [(name, taken.record, taken.head)])
        return store.records("foo")

    return run


def test_all_versions_are_named_anew(root, store, take_all) -> None:
    for name in ("x", "y"):
        (root / name).write_text(name)
    before = take_all()
    name_all_anew(store, "foo")
    after = store.records("foo")
    for name, record in after.items():
        assert record.entry.generation > before[name].entry.generation
        assert record.entry.etag != before[name].entry.etag
        assert (record.key, record.content) == (before[name].key, before[name].content)
        head = Head.decode(store.head("foo", name, record.entry.etag))
        assert (head.etag, head.generation) == (record.entry.etag, record.entry.generation)
    assert after.keys() == before.keys()


def test_a_version_whose_head_is_damaged_is_taken_again(root, store, take_all) -> None:
    (root / "x").write_text("x")
    before = take_all()["x"]
    store.save_head("foo", "x", before.entry.etag, b"junk")
    name_all_anew(store, "foo")
    assert store.records("foo") == {}
    assert take_all()["x"].entry.generation > before.entry.generation


def test_a_reset_is_later_than_all_that_are_known_and_done_once(store, catalogue) -> None:
    ahead = time.time_ns() // 1_000_000 + 10_000_000
    resets = Resets(store, catalogue, ["foo"])
    with capture_logs() as logs:
        reset_at = resets.at("foo", Claim("other", "http://other", reset=ahead))
        assert reset_at == ahead + 1
        assert resets.at("foo", Claim("other", "http://other", reset=ahead)) == reset_at  # was not put
        assert resets.at("foo", None) == reset_at
    assert [log["event"] for log in logs] == ["root reset"]
    assert catalogue.root("foo").reset_at == store.reset_at("foo") == reset_at


def test_without_a_reset_the_latest_is_carried_on(store, catalogue) -> None:
    resets = Resets(store, catalogue, [])
    assert resets.at("foo", None) == 0
    assert resets.at("foo", Claim("other", "http://other", reset=7)) == 7
    assert resets.at("foo", Claim("other", "http://other", reset=3)) == 7
    assert Resets(store, catalogue, []).at("foo", None) == 7
