"""An origin and two further sources, each of which can be made to fail, stall and lie."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from caterva2.errors import Changed, NotFound, Unavailable
from caterva2.model.extents import FILE_EXTENT_BYTES
from caterva2.model.path import DatasetPath
from caterva2.source import hedging
from caterva2.source.hedging import BURST, Budget
from caterva2.source.http import HttpSource, UpstreamStats
from caterva2.source.several import SeveralSources, in_order
from caterva2.source.standing import SourcesStats, Standing
from caterva2.source.stats import PartStats
from caterva2.testing.contracts import all_extents
from caterva2.testing.faults import Fault, FaultyOrigin
from caterva2.testing.origin import MemoryOrigin
from caterva2.testing.waiting import until

from .conftest import DATA, PATH

SOON_S = 3.0
"""An answer that waits for a stall takes a second; a busy machine adds to that."""


class Group:
    """Servers of the same data, nearest first, and what reads from them."""

    def __init__(self, memory: MemoryOrigin, servers: list[FaultyOrigin], session: aiohttp.ClientSession):
        self.memory = memory
        self.origin, *self.further = servers
        self.stats, self.whole, self.budget = SourcesStats(), UpstreamStats(), Budget()
        self.standings = [
            Standing(self._source(server, session), "further" if number else "origin", 4, self.stats)
            for number, server in enumerate(servers)
        ]
        for standing, round_trip_s in zip(self.standings, (0.02, 0.001, 0.005), strict=True):
            standing.is_as_far_as(round_trip_s)
        self.several = self.reader()

    def _source(self, server: FaultyOrigin, session: aiohttp.ClientSession) -> HttpSource:
        stats = PartStats(self.whole)
        return HttpSource(
            server.url, session, token=None, gap_bytes=0, requests=4, timeout_s=30.0, stats=stats
        )

    def reader(self, *, origin: bool = True, further: int = 2) -> SeveralSources:
        first, *others = self.standings
        return SeveralSources(first if origin else None, others[:further], self.budget, self.stats)

    @property
    def asked(self) -> list[int]:
        """How many requests for data each had, the origin first."""
        servers = [self.origin, *self.further]
        return [len([seen for seen in server.seen if seen.path.startswith("/data/")]) for server in servers]

    @property
    def states(self) -> list[str]:
        return [standing.state for standing in self.standings]


@pytest.fixture
async def group(session) -> AsyncIterator[Group]:
    memory = MemoryOrigin({PATH: DATA})
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FaultyOrigin(memory)) for _ in range(3)]
        group = Group(memory, servers, session)
        yield group
        for standing in group.standings:
            await standing.close()


@pytest.fixture
async def head(group):
    return await group.several.head(PATH)


@pytest.fixture
async def extents(group, head):
    return await all_extents(group.several, head)


@pytest.fixture
def read(group, head, extents):
    """Read some extents and check them; return how long it took."""

    async def read(first=0, stop=None, several=None) -> float:
        began = time.perf_counter()
        chosen = extents[first:stop]
        got = await (several or group.several).read(head, chosen)
        assert got == [DATA[extent.offset : extent.stop] for extent in chosen]
        return time.perf_counter() - began

    return read


class TestChoosing:
    async def test_the_nearest_is_asked_and_manifests_come_from_the_origin(self, group, read):
        await read()
        assert group.asked == [0, 1, 0]
        manifests = [[seen for seen in one.seen if "manifest" in seen.path] for one in group.further]
        assert manifests == [[], []]
        assert [seen.path.split("/")[1] for seen in group.origin.seen] == ["api", "api"]
        assert group.whole.requests == 3

    async def test_who_is_busy_costs_more(self, group, read):
        group.standings[1].announced_load = 9.0
        await read()
        assert group.asked == [0, 0, 1]

    async def test_what_is_under_way_to_it_counts(self, group, read):
        group.further[0].gate.clear()
        readings = [asyncio.create_task(read(0, 1)) for _ in range(40)]
        await until(lambda: group.standings[1].load > 5)
        assert group.standings[1].load <= 10
        group.further[0].gate.set()
        await asyncio.gather(*readings)
        assert group.standings[1].load == 0

    async def test_between_equals_the_origin_is_spared(self, group, read):
        for standing in group.standings:
            for _ in range(6):
                standing.is_as_far_as(0.001)
        group.standings[2].announced_load = 1.0
        group.standings[1].announced_load = 1.0
        await read()
        assert group.asked[0] == 0

    async def test_who_is_not_measured_yet_is_asked_last(self, group):
        fresh = Standing(group.standings[1].source, "further", 4, group.stats)
        order = in_order([*group.standings, fresh], "foo/x", "a")
        assert order == [*group.standings[1:], group.standings[0], fresh]

    async def test_a_large_read_is_many_requests(self, group, session):
        large = DatasetPath("foo", "large")
        data = bytes(FILE_EXTENT_BYTES) * 100
        group.memory.publish(large, data)
        head = await group.several.head(large)
        extents = await all_extents(group.several, head)
        assert b"".join(await group.several.read(head, extents)) == data
        assert group.asked == [0, 4, 0]


class TestFailover:
    @pytest.mark.parametrize(("kind", "state"), [("503", "ok"), ("500", "down")])
    async def test_who_fails_is_followed_by_the_next(self, group, read, kind, state):
        group.further[0].faults.append(Fault(kind, times=100))
        await read()
        assert group.asked == [0, 1, 1]
        assert group.states == ["ok", state, "ok"]
        assert group.stats.failovers == 1
        await read()
        assert group.asked == [0, 1, 2]

    async def test_nobody_there(self, group, read):
        await group.further[0].__aexit__(None, None, None)
        await read()
        assert group.asked == [0, 0, 1]

    @pytest.mark.parametrize(
        "kind",
        ["flip", "truncate", "short", "long", "etag", "no-etag", "content-range", "whole", "reset", "junk"],
    )
    async def test_who_lies_is_not_asked_again(self, group, read, kind, caplog):
        group.further[0].faults.append(Fault(kind, times=100))
        await read(1, 3)
        assert group.states == ["ok", "quarantined", "ok"]
        assert group.stats.quarantines == 1
        assert "is not asked for 60 s" in caplog.text
        lied = group.asked[1]
        await read()
        assert group.asked[1] == lied
        assert 50 < group.standings[1].left_s <= 60

    @pytest.mark.parametrize("kind", ["missing-part", "no-end", "flip"])
    async def test_who_lies_in_several_ranges(self, group, head, extents, kind):
        group.further[0].faults.append(Fault(kind, times=100))
        chosen = extents[::3]
        got = await group.several.read(head, chosen)
        assert got == [DATA[extent.offset : extent.stop] for extent in chosen]
        assert group.states == ["ok", "quarantined", "ok"]

    async def test_one_flipped_bit_is_asked_for_again_and_forgiven(self, group, read):
        group.further[0].faults.append(Fault("flip"))
        await read()
        assert group.states == ["ok", "ok", "ok"]
        assert group.asked == [0, 2, 0]

    async def test_who_does_not_have_it_is_left_alone_for_a_while(self, group, read):
        group.further[0].faults.append(Fault("not-cached", times=100))
        await read()
        assert group.states == ["ok", "ok", "ok"]
        await read()
        assert group.asked == [0, 1, 2]
        group.further[0].faults.clear()
        await until(lambda: not group.standings[1].lacks(str(PATH), group.memory.entry(PATH).etag))
        await read()
        assert group.asked == [0, 2, 2]

    async def test_what_arrived_is_not_fetched_again(self, group):
        large = DatasetPath("foo", "large")
        group.memory.publish(large, bytes(FILE_EXTENT_BYTES) * 100)
        head = await group.several.head(large)
        extents = await all_extents(group.several, head)
        group.further[0].faults.append(Fault("503"))
        assert len(await group.several.read(head, extents)) == 100
        assert group.asked == [0, 4, 1]
        assert group.whole.extents == 100

    async def test_the_origins_word_is_final(self, group, session, read, head, extents):
        group.memory.publish(PATH, DATA + b"more")
        for server in group.further:
            server.faults.append(Fault("503", times=100))
        with pytest.raises(Changed):
            await group.several.read(head, extents[:1])
        group.memory.withdraw(PATH)
        with pytest.raises(Changed):
            await group.several.pages(head, [0])
        with pytest.raises(NotFound):
            await group.several.head(PATH)

    async def test_a_source_that_is_behind_is_passed_over(self, group, session):
        behind = FaultyOrigin(MemoryOrigin({PATH: b"old"}))
        async with behind:
            standing = Standing(group._source(behind, session), "further", 4, group.stats)
            standing.is_as_far_as(0.0001)
            several = SeveralSources(group.standings[0], [standing], group.budget, group.stats)
            group.memory.publish(PATH, DATA + b"more")
            head = await several.head(PATH)
            (extent, *_) = await all_extents(several, head)
            for _ in range(10):
                assert await several.read(head, [extent]) == [DATA[: extent.size]]
            assert len([seen for seen in behind.seen if seen.path.startswith("/data/")]) == 1

    async def test_when_all_fail_the_origins_reason_counts(self, group, head, extents):
        for server in (group.origin, *group.further):
            server.faults.append(Fault("503" if server is group.origin else "500", times=100))
        with pytest.raises(Unavailable, match="busy") as caught:
            await group.several.read(head, extents[:1])
        assert caught.value.retry_after_s == 7
        assert group.asked == [1, 1, 1]
        assert group.states == ["down"] * 3
        for server in (group.origin, *group.further):
            server.faults.clear()
        assert await group.several.read(head, extents[:1]), "all are tried again, though they are down"


class TestWithoutTheOrigin:
    async def test_manifests_and_data_come_from_the_others(self, group):
        several = group.reader(origin=False)
        head = await several.head(PATH, group.memory.entry(PATH).etag)
        extents = await all_extents(several, head)
        assert b"".join(await several.read(head, extents)) == DATA
        assert not group.origin.seen

    async def test_they_come_from_others_also_when_it_fails(self, group):
        await group.origin.__aexit__(None, None, None)
        head = await group.several.head(PATH)
        assert len(await all_extents(group.several, head)) == 25

    async def test_who_has_it_not_is_followed_by_the_next(self, group):
        several = group.reader(origin=False)
        group.further[0].faults.append(Fault("not-cached", times=100, route="/"))
        head = await several.head(PATH, group.memory.entry(PATH).etag)
        (extent, *_) = await all_extents(several, head)
        assert await several.read(head, [extent]) == [DATA[: extent.size]]

    async def test_nobody_has_it(self, group, head, extents):
        several = group.reader(origin=False)
        for server in group.further:
            server.faults.append(Fault("not-cached", times=100, route="/"))
        for work in (lambda: several.head(PATH, head.etag), lambda: several.read(head, extents)):
            for _ in range(2):
                with pytest.raises(Unavailable, match="is offline, and of its 2 further sources") as caught:
                    await work()
                assert type(caught.value) is Unavailable
        with pytest.raises(Unavailable):
            _ = [piece async for piece in several.stream(head, 0, 10)]

    async def test_who_did_not_have_something_is_asked_for_the_rest(self, group, head, extents):
        several = group.reader(origin=False, further=1)
        group.further[0].faults.append(Fault("503"))
        with pytest.raises(Unavailable):
            await several.read(head, extents[:1])
        assert await several.read(head, extents[1:2]), "at once: there is nobody else"

    async def test_a_stream_is_the_origins(self, group, head):
        assert b"".join([piece async for piece in group.several.stream(head, 5, 99)]) == DATA[5:99]
        assert group.asked == [1, 0, 0]


class TestHedging:
    @pytest.mark.parametrize("kind", ["stall", "stall-midway"])
    async def test_nobody_waits_for_who_stalls(self, group, read, kind):
        group.further[0].faults.append(Fault(kind, times=1000))
        took = [await read(n, n + 2) for n in range(20)]
        assert max(took) < SOON_S
        assert sorted(took)[10] < 0.2
        assert group.standings[1].hedged >= 1
        assert group.stats.hedges >= 1
        assert group.standings[1].state == "down"
        assert group.asked[1] < 12
        await until(lambda: group.further[0].under_way == 0)

    async def test_many_at_once(self, group, read):
        group.further[0].faults.append(Fault("stall-midway", times=1000))
        took = await asyncio.gather(*(read(n % 20, n % 20 + 1) for n in range(100)))
        assert max(took) < 2 * SOON_S

    async def test_all_but_the_last_stall(self, group, read):
        for server in group.further:
            server.faults.append(Fault("stall", times=1000))
        assert await read() < SOON_S

    async def test_who_sends_slowly_is_not_given_up(self, group, read):
        group.further[0].faults.append(Fault("slow"))
        assert await read(0, 16) > 0.5
        assert group.asked == [0, 1, 0]
        assert group.states == ["ok"] * 3

    async def test_who_is_slower_than_usual_is_hedged_within_a_budget(self, group, read):
        for _ in range(60):
            await read(0, 1)
        assert group.standings[1].patience_s < 0.15
        hedged = group.standings[1].hedged
        left = group.budget._left
        group.further[0].gate.clear()
        asyncio.get_running_loop().call_later(0.6, group.further[0].gate.set)
        assert await read(0, 1) < 0.55
        assert group.standings[1].hedged == hedged + 1
        assert group.budget._left < left

    async def test_who_is_fetching_it_is_waited_for(self, group, read):
        group.further[0].health["fetching_s"] = 0.1
        group.further[0].gate.clear()
        asyncio.get_running_loop().call_later(2.0, group.further[0].gate.set)
        assert await read(0, 1) > 1.9
        assert group.asked == [0, 1, 0]
        assert group.standings[1].hedged == 0
        assert group.states == ["ok"] * 3

    async def test_who_waits_for_a_turn_at_it_waits_too(self, group, read):
        group.further[0].health["fetching_s"] = 0.1
        group.further[0].gate.clear()
        asyncio.get_running_loop().call_later(2.0, group.further[0].gate.set)
        await asyncio.gather(*(read(n % 20, n % 20 + 1) for n in range(30)))
        assert group.asked == [0, 30, 0]
        assert group.states == ["ok"] * 3

    @pytest.mark.parametrize("fetching_s", [3.0, None, "0.1"])
    async def test_who_only_says_so_or_hears_nothing_itself_is_not(self, group, read, fetching_s):
        group.further[0].health["fetching_s"] = fetching_s
        group.further[0].gate.clear()
        assert await read(0, 1) < SOON_S
        assert group.standings[1].hedged == 1

    async def test_nobody_is_waited_for_without_end(self, group, read, monkeypatch):
        monkeypatch.setattr(hedging, "MOST_EXCUSED_S", 0.5)
        group.further[0].health["fetching_s"] = 0.0
        group.further[0].gate.clear()
        assert await read(0, 1) < SOON_S

    async def test_who_is_asked_for_what_it_has_is_not_fetching_it_for_us(self, group, read):
        group.standings[1].source.only_if_cached = True
        group.further[0].health["fetching_s"] = 0.0
        group.further[0].gate.clear()
        assert await read(0, 1) < 1.0 + 0.9

    async def test_quick_refusals_say_nothing_of_silence(self, group, read):
        group.further[0].faults.append(Fault("500", times=1000))
        await asyncio.gather(*(read(0, 1, group.reader(origin=False)) for _ in range(30)))
        assert group.asked[1] == 30
        assert group.standings[1].patience_s == 0.25
        assert group.standings[2].patience_s < 0.25

    async def test_without_a_budget_only_stalls_are(self, group, read):
        while group.budget.take():
            pass
        group.further[0].faults.append(Fault("stall"))
        assert 0.9 < await read(0, 1) < SOON_S
        assert group.standings[1].state == "down", "it was silent for a second"


def test_the_budget_is_a_share_and_a_burst():
    budget = Budget()
    assert [budget.take() for _ in range(12)] == [True] * int(BURST) + [False] * 2
    for _ in range(60):
        budget.earn()
    assert [budget.take() for _ in range(4)] == [True] * 3 + [False] or budget.take() is False
    for _ in range(1000):
        budget.earn()
    assert sum(budget.take() for _ in range(20)) == BURST
