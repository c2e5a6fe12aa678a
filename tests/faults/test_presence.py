"""Publishers that die, stop or hang, subscribers that are cut off: what is said of a root, and how soon."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from caterva2.testing.waiting import wait_until

from .sharing import Sharing

OFFLINE_S = 6.0
"""How soon a publisher that died is seen to be offline, as promised."""

AT_ONCE_S = 1.0
BUSY_S = 6.0
"""What a busy machine adds to what is promised."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def seen_s(condition: Callable[[], object]) -> float:
    """Return how long it takes until something is seen."""
    began = time.monotonic()
    wait_until(condition)
    return time.monotonic() - began


def test_a_killed_publisher_is_offline_everywhere_and_online_once_it_is_back(sharing: Sharing) -> None:
    broker = sharing.broker.url("broker")
    sharing.publisher.kill()
    took_s = seen_s(lambda: sharing.state(sharing.url) == "offline")
    wait_until(lambda: sharing.state(broker) == "offline")
    sharing.start_publisher()
    back_s = seen_s(lambda: sharing.state(sharing.url) == sharing.state(broker) == "online")
    print(f"killed: offline after {took_s:.2f} s, online {back_s:.2f} s after it listened again")
    assert took_s < OFFLINE_S + BUSY_S
    assert back_s < AT_ONCE_S + BUSY_S


def test_a_publisher_that_stops_is_offline_at_once(sharing: Sharing) -> None:
    sharing.publisher.popen.send_signal(signal.SIGTERM)
    took_s = seen_s(lambda: sharing.state(sharing.url) == "offline")
    print(f"stopped: offline after {took_s:.2f} s")
    assert took_s < AT_ONCE_S + 2  # long before a heartbeat is missed
    sharing.start_publisher()
    wait_until(lambda: sharing.state(sharing.url) == "online")


def test_a_publisher_that_hangs_is_offline_and_online_once_it_goes_on(sharing: Sharing) -> None:
    os.kill(sharing.publisher.popen.pid, signal.SIGSTOP)
    took_s = seen_s(lambda: sharing.state(sharing.url) == "offline")
    assert not sharing.is_fresh(sharing.url)
    os.kill(sharing.publisher.popen.pid, signal.SIGCONT)
    back_s = seen_s(lambda: sharing.state(sharing.url) == "online")
    print(f"hung: offline after {took_s:.2f} s, online {back_s:.2f} s after it went on")
    assert took_s < OFFLINE_S + BUSY_S
    assert back_s < AT_ONCE_S + BUSY_S


def hang(sharing: Sharing) -> Callable[[], None]:
    bus = sharing.nats
    os.kill(bus, signal.SIGSTOP)
    return lambda: os.kill(bus, signal.SIGCONT)


def kill(sharing: Sharing) -> Callable[[], None]:
    sharing.kill_broker()
    return sharing.start_broker


@pytest.mark.parametrize("cut_off", [hang, kill])
def test_a_subscriber_that_is_cut_off_says_unknown(sharing: Sharing, cut_off) -> None:
    said = []

    def says(state: str) -> bool:
        said.append(sharing.state(sharing.url))
        return said[-1] == state

    end = cut_off(sharing)
    took_s = seen_s(lambda: says("unknown"))
    assert not sharing.is_fresh(sharing.url)
    assert sharing.is_equal(sharing.url)  # what it knew it still knows
    end()
    back_s = seen_s(lambda: says("online"))
    print(f"{cut_off.__name__}: unknown after {took_s:.2f} s, online {back_s:.2f} s after it was over")
    assert took_s < OFFLINE_S + BUSY_S
    assert back_s < 3 + BUSY_S
    assert "offline" not in said
