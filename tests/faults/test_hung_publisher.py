"""A publisher that hangs: what is cached is read as before, and all is well when it goes on."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")

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
