"""A publisher that hangs: what is cached is read as before, the rest is refused soon, until it goes on."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from caterva2.testing.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")

REFUSED_S = 2.5
"""Two seconds, as promised, and what a busy machine adds."""

FRESH_S = 3.0
"""How long a publisher that goes on may be taken to hang still."""

READ_S = 0.5
"""Generous for a read of some kilobytes that asks nobody."""


def test_cached_reads_go_on_beside_a_hung_publisher(start, ask, arrays) -> None:
    publisher, subscriber = start()
    url = subscriber.url("subscriber")
    (warm, *cold) = arrays

    def slowest_s() -> float:
        took = []
        for plane in range(0, 48, 4):
            started = time.perf_counter()
            np.testing.assert_array_equal(ask.part(url, warm, str(plane)), arrays[warm][plane])
            took.append(time.perf_counter() - started)
        return max(took)

    slowest_s()
    before = slowest_s()
    os.kill(publisher.popen.pid, signal.SIGSTOP)
    try:
        during = slowest_s()
        assert ask.json(f"{url}/api/list/foo")
        assert ask.json(f"{url}/api/info/foo/{warm}")["size"] > 0
    finally:
        os.kill(publisher.popen.pid, signal.SIGCONT)
    print(f"slowest read: {before:.3f} s before, {during:.3f} s while the publisher hangs")
    assert max(before, during) < READ_S
    for name in cold:
        np.testing.assert_array_equal(ask.part(url, name), arrays[name])


def test_what_is_not_cached_is_refused_soon_until_the_publisher_goes_on(start, ask, arrays) -> None:
    publisher, subscriber = start()
    url = f"{subscriber.url('subscriber')}/api/fetch/foo/{next(iter(arrays))}?slice_=0,0,0"
    os.kill(publisher.popen.pid, signal.SIGSTOP)
    try:
        for _ in range(5):
            started = time.perf_counter()
            refused = ask.get(url)
            assert time.perf_counter() - started < REFUSED_S
            assert refused.status == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.json()["type"].endswith("unavailable")
    finally:
        os.kill(publisher.popen.pid, signal.SIGCONT)
    wait_until(lambda: ask.get(url).status == 200, FRESH_S)
