import time

import pytest

from caterva2.http import load as module
from caterva2.http.load import Load


def test_it_is_how_busy_the_loop_or_the_cores_are(monkeypatch) -> None:
    clocks = [0.0, 0.0, 0.0]
    monkeypatch.setattr(module, "_clocks", lambda: tuple(clocks))
    monkeypatch.setattr(module, "cpu_count", lambda: 4)

    def after(passed_s: float, loop_s: float, process_s: float) -> float:
        for n, seconds in enumerate((passed_s, loop_s, process_s)):
            clocks[n] += seconds
        return load.average()

    load = Load()
    assert after(2, 0, 0) == 0
    assert after(2, 1, 1) == 1
    assert after(2, 0.5, 6) == pytest.approx(3)
    assert after(1, 1, 4) == pytest.approx(19)
    assert after(0, 0, 0) == 0


def test_waiting_is_no_load() -> None:
    """Compared with work, of which a busy machine lets us do less than it takes time."""
    load = Load()
    time.sleep(0.1)
    waiting = load.average()
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
    assert waiting < load.average() / 2
