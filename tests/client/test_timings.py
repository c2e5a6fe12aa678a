import pytest

from caterva2.client.timings import Timing, parse_timing
from caterva2.source.planner import Costs, Explanation


def test_what_a_service_says_is_understood():
    said = Explanation([("slice", Costs(0.1, 0.2, 0.03))] * 2, 1234, 0.0291).server_timing()
    assert parse_timing(said) == Timing(
        "slice 2", {"blocks": 200.0, "chunks": 400.0, "slice": 60.0}, 29.1, 1234
    )


def test_what_was_here():
    assert parse_timing(Explanation().server_timing()) == Timing("cached")


@pytest.mark.parametrize("value", [None, "", "db;dur=53", "total", ";;;", 'a;desc="'])
def test_other_headers_say_nothing(value):
    assert parse_timing(value) is None


@pytest.mark.parametrize("value", ["cache;desc=miss, upstream;dur=x;desc=y", "cache, upstream", "cache,,"])
def test_nonsense_is_nothing_moved(value):
    assert parse_timing(value) == Timing("cached")
