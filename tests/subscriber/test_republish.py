"""What a subscriber announces itself as a further source of, and whom one asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from caterva2.bus.records import SourceBeat
from caterva2.config import SubscriberSettings
from caterva2.errors import NotFound, Unavailable
from caterva2.http.load import Load
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.source.http import HttpSource
from caterva2.source.several import SeveralSources
from caterva2.subscriber import origins as module
from caterva2.subscriber import republish
from caterva2.subscriber.origins import Origins
from caterva2.subscriber.republish import Republished
from caterva2.testing.faults import FaultyOrigin
from caterva2.testing.origin import MemoryOrigin
from caterva2.testing.waiting import until

PATH = DatasetPath("foo", "x")
FAR, NEAR = "http://127.0.0.1:9", "http://127.0.0.2:9"


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue()
    for root in ("foo", "bar", "never"):
        catalogue.set_root(root, url=FAR)
        catalogue.set_state(root, "online")
    catalogue.confirm("foo")
    catalogue.confirm("bar")
    catalogue.doubt("bar")
    return catalogue


def republished(catalogue: Catalogue, *chosen: str) -> Republished:
    return Republished(catalogue, chosen, instance="one", url=lambda: NEAR, load=Load())


class TestAnnounced:
    def test_roots_that_were_confirmed_once(self, catalogue) -> None:
        beat = republished(catalogue, "*").beat()
        assert (beat.instance, beat.url, beat.roots) == ("one", NEAR, ("foo", "bar"))
        assert 0 <= beat.load < 20
        assert republished(catalogue, "bar", "never", "nothing").beat().roots == ("bar",)
        assert republished(catalogue).beat().roots == ()

    def test_what_is_not_there_is_said_once_and_announced_when_it_comes(self, catalogue, monkeypatch) -> None:
        monkeypatch.setattr(republish, "PATIENCE_S", 0.0)
        source = republished(catalogue, "new", "foo")
        with capture_logs() as logs:
            assert [source.beat().roots for _ in range(3)] == [("foo",)] * 3
        assert [entry["root"] for entry in logs] == ["new"]
        catalogue.set_root("new")
        catalogue.confirm("new")
        assert source.beat().roots == ("foo", "new")


class Asking:
    """Origins, and the further sources that they are told of."""

    def __init__(self, origins: Origins, beats: list[SourceBeat]) -> None:
        self.origins, self.beats = origins, beats


@pytest.fixture
async def asking(catalogue) -> AsyncIterator[Asking]:
    beats: list[SourceBeat] = []
    settings = SubscriberSettings()
    async with Origins(catalogue, settings, lambda root: [b for b in beats if root in b.roots]) as origins:
        yield Asking(origins, beats)


class TestAsked:
    async def test_the_publisher_alone_is_handed_out_as_it_is(self, asking) -> None:
        source = asking.origins.source(PATH)
        assert type(source) is HttpSource
        assert asking.origins.source(PATH) is source

    async def test_further_sources_with_it_or_without_it(self, asking, catalogue) -> None:
        asking.beats.append(SourceBeat("one", NEAR, ("foo",), 0.0))
        assert type(asking.origins.source(PATH)) is SeveralSources
        assert type(asking.origins.source(DatasetPath("bar", "x"))) is HttpSource
        catalogue.set_state("foo", "offline")
        catalogue.set_state("bar", "offline")
        assert type(asking.origins.source(PATH)) is SeveralSources
        with pytest.raises(Unavailable, match="is offline"):
            asking.origins.source(DatasetPath("bar", "x"))
        with pytest.raises(NotFound):
            asking.origins.source(DatasetPath("nothing", "x"))
        assert [source.state for source in asking.origins.report(catalogue.root("foo"))] == ["down", "ok"]

    async def test_the_publisher_is_no_further_source_of_itself(self, asking) -> None:
        asking.beats.append(SourceBeat("one", FAR, ("foo",), 0.0))
        assert type(asking.origins.source(PATH)) is HttpSource

    @pytest.mark.parametrize("url", ["", "http://[", "http://h:99999", "nonsense"])
    async def test_an_address_that_is_none_costs_nothing_but_its_root(self, asking, catalogue, url) -> None:
        catalogue.set_root("foo", url=url)
        asking.beats.append(SourceBeat("one", NEAR, ("foo", "bar"), 0.0))
        running = asyncio.create_task(asking.origins.run())
        await until(lambda: asking.origins.report(catalogue.root("bar"))[1].state == "down")
        assert [source.url for source in asking.origins.report(catalogue.root("foo"))] == [NEAR]
        asking.beats.clear()
        with pytest.raises(Unavailable):
            asking.origins.source(PATH)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def test_what_one_knows_of_a_source_outlives_it(self, asking, catalogue, monkeypatch) -> None:
        asking.beats.append(SourceBeat("one", NEAR, ("foo",), 2.0))
        asking.origins.source(PATH)
        (_, before) = asking.origins.report(catalogue.root("foo"))
        assert (before.url, before.kind, before.load) == (NEAR, "further", 2.0)
        running = asyncio.create_task(asking.origins.run())
        await until(lambda: asking.origins.report(catalogue.root("foo"))[1].state == "down")
        beat = asking.beats.pop()
        await asyncio.sleep(2 * module.TICK_S)
        asking.beats.append(replace(beat, load=0.0))
        assert asking.origins.report(catalogue.root("foo"))[1].state == "down"
        monkeypatch.setattr(module, "KEPT_S", 0.0)
        asking.beats.clear()
        await until(lambda: (NEAR, "further") not in asking.origins._standings)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_is_online_is_probed_once_and_again_where_there_is_a_choice(catalogue) -> None:
    async with AsyncExitStack() as stack:
        far, near = [await stack.enter_async_context(FaultyOrigin(MemoryOrigin({PATH: b"x"}))) for _ in "ab"]
        beats: list[SourceBeat] = []
        catalogue.set_root("foo", url=far.url)
        origins = await stack.enter_async_context(Origins(catalogue, SubscriberSettings(), lambda _: beats))
        running = asyncio.create_task(origins.run())
        origins.source(PATH)
        standing = origins._standing(far.url, "origin")
        await until(lambda: len(standing._round_trips) == module.FIRST_PROBES)
        await asyncio.sleep(3 * module.TICK_S)
        assert len(standing._round_trips) == module.FIRST_PROBES
        beats.append(SourceBeat("one", near.url, ("foo",), 0.0))

        def measured() -> bool:
            found = origins.report(catalogue.root("foo"))
            return len(found) == 2 and all(0 < (source.rtt_ms or 0) < 1000 for source in found)

        await until(measured)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
