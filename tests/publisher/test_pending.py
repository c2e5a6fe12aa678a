"""When files are taken."""

from __future__ import annotations

import time

import pytest

from caterva2.publisher.pending import AGAIN_S, Pending
from caterva2.publisher.scan import Found
from caterva2.source.files import StatKey


def found(age_s: float, ino: int = 1) -> Found:
    written = time.time_ns() - int(age_s * 1e9)
    return Found("x", StatKey(ino, 1, written, written))


@pytest.fixture
def pending():
    return Pending(2.0, 30.0)


def test_a_quiet_file_is_due_at_once(pending) -> None:
    pending.see("x", found(60), now=100.0)
    assert pending.settled("x", 100.0)
    assert [name for name, _ in pending.take_due(100.0, 10)] == ["x"]
    assert pending.take_due(100.0, 10) == []  # handed out once


def test_a_file_just_written_settles_first(pending) -> None:
    pending.see("x", found(0.5), now=100.0)
    assert not pending.settled("x", 100.0)
    assert pending.take_due(101.3, 10) == []
    assert pending.next_due() == pytest.approx(101.5, abs=0.1)
    assert len(pending.take_due(101.7, 10)) == 1


def test_a_time_in_the_future_settles_by_our_clock(pending) -> None:
    pending.see("x", found(-3600), now=100.0)
    assert pending.take_due(101.9, 10) == []
    assert len(pending.take_due(102.1, 10)) == 1
    assert pending.settled("x", 102.1)


def test_a_file_written_all_the_time_is_forced(pending) -> None:
    for second in range(30):
        pending.see("x", found(0, ino=second), now=100.0 + second)
        assert pending.take_due(100.0 + second, 10) == []
    pending.see("x", found(0, ino=99), now=130.0)
    assert len(pending.take_due(130.0, 10)) == 1
    assert not pending.settled("x", 130.0)
    pending.failed("x", 130.0)
    pending.see("x", found(0, ino=100), now=130.1)
    assert pending.next_due() >= 130.0 + AGAIN_S  # no loop without a pause


def test_what_failed_waits_before_it_is_tried_again(pending) -> None:
    seen = found(60)
    pending.see("x", seen, now=100.0)
    pending.take_due(100.0, 10)
    pending.failed("x", 100.0)
    pending.see("x", seen, now=100.1)
    assert pending.next_due() == pytest.approx(100.1 + AGAIN_S)


def test_forgotten_files_are_not_due(pending) -> None:
    for name in ("x", "y"):
        pending.see(name, found(60), now=100.0)
    pending.forget(["x", "never seen"])
    assert [name for name, _ in pending.take_due(100.0, 10)] == ["y"]
    pending.forget(["y"])
    assert pending.next_due() is None
    assert list(pending) == []


def test_a_file_that_is_seen_again_as_it_was_is_handed_out_once(pending) -> None:
    quiet = found(60)
    pending.see("x", quiet, now=100.0)
    pending.see("x", quiet, now=101.0)
    assert len(pending.take_due(101.0, 10)) == 1
    assert pending.take_due(101.0, 10) == []
    pending.see("x", quiet, now=102.0)  # it was handed out, and nothing came of it
    assert len(pending.take_due(102.0, 10)) == 1
