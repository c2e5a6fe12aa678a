"""Faults of the bus, with changes made meanwhile: soon after each, every view is the directory again.

It is measured from the end of a fault until a subscriber's view equals the directory, and until it says that
this is confirmed (``fresh``); and how long both take a new subscriber, from when it listens.
``CATERVA2_FAULTS=20`` repeats each fault so often.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import pytest

from caterva2.testing.waiting import wait_until

from .sharing import Sharing

ROUNDS = int(os.environ.get("CATERVA2_FAULTS", "1"))
PROMISED_S = 3.0
BUSY_S = 7.0
"""What a busy machine adds to what is promised."""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parents"),
    pytest.mark.timeout(60 + 20 * ROUNDS),
]


def nats_killed(sharing: Sharing) -> None:
    os.kill(sharing.nats, signal.SIGKILL)
    sharing.change()


def broker_killed(sharing: Sharing) -> None:
    sharing.kill_broker()
    sharing.change()
    wait_until(sharing.is_doubted)
    sharing.start_broker()


def broker_restarted(sharing: Sharing) -> None:
    sharing.broker.stop()
    sharing.change()
    sharing.start_broker()


def nats_stopped(sharing: Sharing) -> None:
    pid = sharing.nats
    os.kill(pid, signal.SIGSTOP)
    sharing.change()
    wait_until(sharing.is_doubted)
    os.kill(pid, signal.SIGCONT)


def broker_stopped(sharing: Sharing) -> None:
    os.kill(sharing.broker.popen.pid, signal.SIGSTOP)
    sharing.change()
    wait_until(lambda: sharing.is_equal(sharing.url))  # it is not needed for that
    sharing.change()
    os.kill(sharing.broker.popen.pid, signal.SIGCONT)


def both_stopped(sharing: Sharing) -> None:
    pids = (sharing.broker.popen.pid, sharing.nats)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    sharing.change()
    wait_until(sharing.is_doubted)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def store_wiped(sharing: Sharing) -> None:
    sharing.kill_broker()
    shutil.rmtree(sharing.store)
    sharing.change()
    sharing.start_broker()


def store_rolled_back(sharing: Sharing) -> None:
    older = sharing.site.directory / "older"
    sharing.broker.stop()
    shutil.copytree(sharing.store, older)
    sharing.start_broker()
    sharing.change(5)
    wait_until(lambda: sharing.is_equal(sharing.url))
    sharing.kill_broker()
    shutil.rmtree(sharing.store)
    older.rename(sharing.store)
    sharing.change()
    sharing.start_broker()


def store_rolled_back_and_written_past(sharing: Sharing) -> None:
    """The reader comes back to a store that has other changes under the numbers that it has seen."""
    older = sharing.site.directory / "older"
    sharing.broker.stop()
    shutil.copytree(sharing.store, older)
    sharing.start_broker()
    sharing.change(3)
    wait_until(lambda: sharing.is_equal(sharing.url))
    os.kill(sharing.subscriber.popen.pid, signal.SIGSTOP)
    try:
        sharing.kill_broker()
        shutil.rmtree(sharing.store)
        older.rename(sharing.store)
        sharing.start_broker()
        broker = sharing.broker.url("broker")
        for _ in range(4):
            sharing.change(5)
            wait_until(lambda: sharing.is_equal(broker))
    finally:
        os.kill(sharing.subscriber.popen.pid, signal.SIGCONT)


def publisher_stopped(sharing: Sharing) -> None:
    pid = sharing.publisher.popen.pid
    os.kill(pid, signal.SIGSTOP)
    sharing.change()
    wait_until(sharing.is_doubted)
    os.kill(pid, signal.SIGCONT)


FAULTS = (
    nats_killed,
    nats_stopped,
    broker_killed,
    broker_restarted,
    broker_stopped,
    both_stopped,
    store_wiped,
    store_rolled_back,
    store_rolled_back_and_written_past,
    publisher_stopped,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_views_are_the_directory_again(sharing: Sharing, fault: Callable[[Sharing], None]) -> None:
    figures = defaultdict(list)
    for _ in range(ROUNDS):
        fault(sharing)
        equal_s, fresh_s = sharing.agree_s(sharing.url, time.monotonic())
        figures["equal"].append(equal_s)
        figures["fresh"].append(fresh_s)
        figures["new"].append(sharing.new_subscriber_s())
    for what, seconds in figures.items():
        spread = f"min {min(seconds):.2f}, median {statistics.median(seconds):.2f}, max {max(seconds):.2f}"
        print(f"{fault.__name__}: {what} after {spread} s")
        assert max(seconds) < PROMISED_S + BUSY_S
