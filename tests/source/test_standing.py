"""What is concluded of a source from what it does."""

import asyncio

import pytest

from caterva2.errors import Changed, IntegrityError, NotCached, NotFound, Unauthorized, Unavailable
from caterva2.source import standing as module
from caterva2.source.standing import SourcesStats, Standing
from caterva2.source.upstream import Declined, Nonsense, WrongVersion
from caterva2.testing.waiting import until

WRONG = [IntegrityError("foo/x", "him", 0, 1), Nonsense("junk"), WrongVersion("foo/x", "a", "b")]


@pytest.fixture
def stats():
    return SourcesStats()


@pytest.fixture
def further(source, stats):
    return Standing(source, "further", 8, stats)


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    times = [1000.0]
    monkeypatch.setattr(module, "_now", lambda: times[0])
    return times


async def test_the_least_round_trip_counts(further):
    assert further.round_trip_s is None
    assert further.cost_s == float("inf")
    assert await further.probe()
    assert 0 < further.round_trip_s < 1
    for round_trip_s in (0.03, 0.02, 0.09, 0.5, 0.4, 0.3):
        further.is_as_far_as(round_trip_s)
    assert further.round_trip_s == 0.02
    further.announced_load = 3.0
    assert further.cost_s == pytest.approx(0.0205 * 4)


async def test_nobody_there(unused_tcp_port, source_of, stats):
    standing = Standing(source_of(f"http://127.0.0.1:{unused_tcp_port}"), "further", 8, stats)
    assert not await standing.probe()
    assert (standing.state, standing.round_trip_s, standing.last) == ("down", None, True)


async def test_a_host_that_answers_nothing_hangs(stats, source_of):
    async def say_nothing(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    standing = Standing(source_of(f"http://127.0.0.1:{port}"), "further", 8, stats)
    assert not await standing.probe()
    assert standing.state == "hung"
    server.close()


class TestFailures:
    @pytest.mark.parametrize("error", WRONG, ids=lambda error: type(error).__name__)
    def test_who_sends_what_is_wrong_is_quarantined_for_longer_each_time(self, further, stats, clock, error):
        for expected_s in (60, 120, 240, 480, 600, 600):
            assert further.state == "ok"
            further.failed(error, "foo/x", "a")
            further.failed(error, "foo/x", "a")  # another request that was under way
            assert (further.state, further.left_s) == ("quarantined", expected_s)
            clock[0] += expected_s - 1
            assert further.state == "quarantined"
            clock[0] += 2
        assert stats.quarantines == 6

    @pytest.mark.parametrize("error", WRONG, ids=lambda error: type(error).__name__)
    def test_but_the_origin_is_asked_last(self, source, stats, clock, error):
        origin = Standing(source, "origin", 8, stats)
        origin.failed(error, "foo/x", "a")
        assert (origin.state, origin.last, stats.quarantines) == ("down", True, 0)

    @pytest.mark.parametrize("error", [Unavailable("gone"), Unauthorized("no")], ids=["gone", "token"])
    def test_who_fails_is_down_for_a_moment(self, further, clock, error):
        for expected_s in (1, 2, 4, 8, 10, 10):
            further.failed(error, "foo/x", "a")
            further.failed(error, "foo/x", "a")
            assert (further.state, further.left_s, further.last) == ("down", expected_s, True)
            clock[0] += expected_s + 0.1
            assert not further.last
        further.answered("foo/x", "a")
        further.failed(error, "foo/x", "a")
        assert further.left_s == 1

    @pytest.mark.parametrize(
        "error",
        [NotCached("no"), Declined("busy"), Changed("foo/x", "a"), NotFound("foo/x")],
        ids=["504", "503", "412", "404"],
    )
    def test_what_it_does_not_have_is_not_asked_of_it_for_a_while(self, further, clock, error):
        for expected_s in (0.5, 1, 2, 4, 8, 16, 30, 30):
            further.failed(error, "foo/x", "a")
            further.failed(error, "foo/x", "a")
            assert further.lacks("foo/x", "a")
            clock[0] += expected_s - 0.1
            assert further.lacks("foo/x", "a")
            clock[0] += 0.2
            assert not further.lacks("foo/x", "a")
        further.failed(error, "foo/x", "a")
        assert (further.state, further.last) == ("ok", False)
        assert not further.lacks("foo/x", "another version")
        assert not further.lacks("foo/y", "a")

    def test_what_is_remembered_is_bounded(self, further, clock, monkeypatch):
        monkeypatch.setattr(module, "REFUSALS", 3)
        for name in "abcdef":
            further.failed(NotCached("no"), name, "v")
        assert [name for name in "abcdef" if further.lacks(name, "v")] == ["d", "e", "f"]


class TestPatience:
    def test_grows_with_what_is_usual_within_bounds(self, further):
        for _ in range(19):
            further.was_silent(0.1)
        assert (further.patience_s, further.stall_s) == (0.25, 1.0)
        further.was_silent(0.1)
        assert (further.patience_s, further.stall_s) == (0.1, 1.0)
        for _ in range(12):
            further.was_silent(0.9)
        assert (further.patience_s, further.stall_s) == (0.9, 1.8)
        for _ in range(200):
            further.was_silent(0.001)
        assert (further.patience_s, further.stall_s) == (0.02, 1.0)
        for _ in range(200):
            further.was_silent(60)
        assert (further.patience_s, further.stall_s) == (1.0, 4.0)

    async def test_who_is_beaten_is_probed_and_asked_last_until_it_answers(self, further):
        further.was_beaten(0.3)
        assert (further.state, further.last) == ("ok", True)
        await until(lambda: not further.last)
        assert further.round_trip_s is not None

    async def test_who_is_beaten_three_times_in_a_row_is_down(self, further):
        for _ in range(2):
            further.was_beaten(0.3)
        further.answered("foo/x", "a")
        for _ in range(2):
            further.was_beaten(0.3)
        assert further.state == "ok"
        further.was_beaten(0.3)
        assert further.state == "down"
        await further.close()

    async def test_who_stalls_is_down_at_once(self, further):
        further.was_beaten(1.0)
        assert further.state == "down"
        await further.close()
