from __future__ import annotations

import pytest

from caterva2.errors import InvalidPath, NotFound
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import parse_path
from caterva2.model.root import Entry
from caterva2.subscriber.pins import Pins
from caterva2.subscriber.store import SubscriberStore


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue()
    catalogue.set_root("foo", url="http://h:1")
    for name in ("a", "dir/b", "dir/c"):
        catalogue.apply("foo", name, Entry("e" * 32, 1, 10, "file", 1.0))
    return catalogue


@pytest.fixture
def store(tmp_path):
    store = SubscriberStore(tmp_path / "db")
    yield store
    store.close()


def test_pins_name_what_is_there_and_what_comes(catalogue, store) -> None:
    pins = Pins(catalogue, store)
    assert pins.pin("foo/dir/") == 2
    assert pins.pin("foo/*.later") == 0
    assert parse_path("foo/dir/new") in pins
    assert parse_path("foo/x.later") in pins
    assert parse_path("foo/a") not in pins
    assert Pins(catalogue, store).patterns == ["foo/*.later", "foo/dir"]
    assert pins.unpin("foo/dir") == 2
    assert parse_path("foo/dir/b") not in pins


def test_slips_of_the_pen_are_told(catalogue, store) -> None:
    pins = Pins(catalogue, store)
    for pattern in ("bar", "foo/nothing"):
        with pytest.raises(NotFound):
            pins.pin(pattern)
    with pytest.raises(NotFound, match="not pinned"):
        pins.unpin("foo")
    with pytest.raises(InvalidPath):
        pins.pin("/")
    assert pins.patterns == []
