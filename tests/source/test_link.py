import pytest

from caterva2.source.link import FAR_BYTES_PER_S, NEAR_BYTES_PER_S, WINDOW_BYTES, Link


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def link(clock):
    return Link(clock)


def transfer(link, clock, nbytes, bytes_per_s, piece=16 * 1024):
    with link.body():
        link.received(piece)
        for _ in range(nbytes // piece):
            clock.now += piece / bytes_per_s
            link.received(piece)


def test_the_least_round_trip_counts(link):
    assert link.round_trip_s is None
    for seconds in (0.5, 0.02, 0.3):
        link.answered(seconds)
    assert link.round_trip_s == 0.02


def test_a_link_that_changes_is_seen(link):
    for seconds in [0.02] * 16 + [0.2] * 16:
        link.answered(seconds)
    assert link.round_trip_s == 0.2


def test_what_is_not_measured_is_usual_at_that_distance(link):
    assert link.bytes_per_s == FAR_BYTES_PER_S
    link.answered(0.0005)
    assert link.bytes_per_s == NEAR_BYTES_PER_S


def test_rates_are_taken_while_bodies_arrive(link, clock):
    for _ in range(5):
        transfer(link, clock, 1 << 20, 10e6)
        clock.now += 10  # nobody asks for anything
    assert link.bytes_per_s == pytest.approx(10e6)


def test_several_bodies_at_a_time_are_one_transfer(link, clock):
    piece = 64 * 1024
    with link.body(), link.body():
        for _ in range(17):
            link.received(piece)
            clock.now += piece / 20e6
    assert link.bytes_per_s == pytest.approx(20e6)


def test_small_answers_say_nothing_of_the_rate(link, clock):
    transfer(link, clock, WINDOW_BYTES // 2, 1e3)
    assert link.bytes_per_s == FAR_BYTES_PER_S


def test_one_burst_does_not_count(link, clock):
    for rate in (10e6, 10e6, 900e6):
        transfer(link, clock, 8 << 20 if rate > 1e8 else 1 << 19, rate)
    assert link.bytes_per_s == pytest.approx(10e6)
