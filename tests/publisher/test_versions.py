"""Which bytes are a version, and what it is called."""

from __future__ import annotations

import itertools
import os
import time

import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.model.manifest import Head
from caterva2.publisher.scan import Scanner
from caterva2.publisher.versions import SMALL_BYTES, Taken, Versions, Wait


@pytest.fixture
def versions(root):
    clock = itertools.count(time.time_ns() // 1_000_000)
    return Versions("foo", str(root), "origin", lambda root, name, now_ms: next(clock))


@pytest.fixture
def take(root, versions):
    def run(name, previous=None, **options):
        return versions.take(name, Scanner("foo", str(root)).scan().files[name], previous, **options)

    return run


def test_an_array_is_described(root, take) -> None:
    write_array(root / "x.b2nd", np.arange(60, dtype=np.int16).reshape(3, 20))
    taken = take("x.b2nd")
    entry, head = taken.record.entry, Head.decode(taken.head)
    assert (entry.kind, entry.shape, entry.dtype, entry.error) == ("array", (3, 20), "int16", None)
    assert entry.size == head.size == (root / "x.b2nd").stat().st_size
    assert entry.mtime == pytest.approx((root / "x.b2nd").stat().st_mtime)
    assert (entry.etag, entry.generation) == (head.etag, head.generation)
    assert len(entry.etag) == 32
    assert bytes.fromhex(entry.etag)


@pytest.mark.parametrize("data", [b"", b"junk", b"junk" * 1000])
def test_what_is_not_what_its_name_says_is_a_file_with_an_error(root, take, data) -> None:
    (root / "x.b2nd").write_bytes(data)
    taken = take("x.b2nd")
    assert taken.record.entry.kind == "file"
    assert taken.record.entry.error
    assert Head.decode(taken.head).meta["error"] == taken.record.entry.error
    assert str(root) not in taken.record.entry.error


def test_a_cut_array_is_a_file_with_an_error(root, take) -> None:
    write_array(root / "x.b2nd", np.arange(1000))
    os.truncate(root / "x.b2nd", (root / "x.b2nd").stat().st_size - 10)
    assert "cut" in take("x.b2nd").record.entry.error


def test_a_small_file_that_is_touched_stays_the_same(root, take, versions) -> None:
    (root / "x").write_bytes(b"x" * SMALL_BYTES)
    first = take("x").record
    os.utime(root / "x")
    again = take("x", first)
    assert again.head is None
    assert again.record.entry == first.entry
    assert again.record.key != first.key
    assert (versions.stats.taken, versions.stats.touched) == (1, 1)


def test_a_large_file_is_not_hashed_and_a_new_version_when_touched(root, take, versions) -> None:
    (root / "x").write_bytes(b"x" * (SMALL_BYTES + 1))
    first = take("x").record
    os.utime(root / "x")
    again = take("x", first)
    assert again.record.entry.etag != first.entry.etag
    assert versions.stats.bytes_hashed == 0
    assert again.head is not None


def test_names_differ_by_path_generation_and_origin(root, take, versions) -> None:
    for name in ("x", "y"):
        (root / name).write_bytes(b"same")
    etags = {take("x").record.entry.etag, take("x").record.entry.etag, take("y").record.entry.etag}
    versions.next_generation = lambda *_: 1
    versions.origin = "another"
    assert len(etags | {take("x").record.entry.etag}) == 4


def test_a_generation_that_is_given_twice_has_two_names(root, take, versions) -> None:
    """After the state was restored and the clock set back; nothing a name is made of differs."""
    versions.next_generation = lambda *_: 7
    (root / "x").write_bytes(b"a" * (SMALL_BYTES + 1))
    first = take("x").record.entry
    (root / "x").write_bytes(b"b" * (SMALL_BYTES + 1))
    second = take("x").record.entry
    assert first.generation == second.generation == 7
    assert first.size == second.size
    assert first.etag != second.etag


def test_a_file_that_changed_since_it_was_seen_waits(root, versions) -> None:
    (root / "x").write_bytes(b"one")
    found = Scanner("foo", str(root)).scan().files["x"]
    (root / "x").write_bytes(b"two, longer")
    assert isinstance(versions.take("x", found, None), Wait)
    assert versions.stats.taken == 0


def test_what_was_not_quiet_must_be_older_than_a_moment_and_readable(root, take) -> None:
    (root / "x").write_bytes(b"just now")
    (root / "bad.b2nd").write_bytes(b"a part of something")
    assert isinstance(take("x", settled=False), Wait)
    deadline = time.monotonic() + 5
    while isinstance(take("x", settled=False), Wait):
        assert time.monotonic() < deadline
    assert isinstance(take("bad.b2nd", settled=False), Wait)
    assert isinstance(take("bad.b2nd", settled=True), Taken)
