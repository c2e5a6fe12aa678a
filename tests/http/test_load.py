from os import cpu_count

from caterva2.http import load as module
from caterva2.http.load import Load


def test_it_is_the_average_since_it_was_last_asked(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    load, cores = Load(), cpu_count() or 1
    assert load.average() == 0
    with load.one_more():
        now[0] += 1
        with load.one_more():
            now[0] += 1
        now[0] += 2
    now[0] += 1
    assert load.average() == (1 + 2 + 2) / 5 / cores
    now[0] += 1
    assert load.average() == 0
    with load.one_more(), load.one_more():
        assert load.average() == 2 / cores, "no time has passed"
        now[0] += 3
        assert load.average() == 2 / cores
