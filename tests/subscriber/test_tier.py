"""What a tier announces, and when: in one process, with real brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from caterva2.broker.service import BrokerService
from caterva2.bus.buckets import DATA, ROOTS, Bucket
from caterva2.config import BrokerSettings, SubscriberSettings
from caterva2.model.root import Entry
from caterva2.subscriber.service import SubscriberService
from caterva2.testing.cluster import ANY_PORT, Cluster
from caterva2.testing.waiting import until


class Two:
    """A cluster with roots ``foo`` and ``bar``, a broker below it, and a subscriber there."""

    def __init__(self, stack: AsyncExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self.roots = {name: directory / name for name in ("foo", "bar")}
        for name, root in self.roots.items():
            root.mkdir()
            (root / "x").write_text(name)

    async def start(self) -> None:
        self.above = await self._stack.enter_async_context(Cluster(self._directory / "above", self.roots))
        settings = BrokerSettings(listen=ANY_PORT, state=self._directory / "below")
        self.below = await self._stack.enter_async_context(BrokerService(settings))
        self.leaf = await self._subscriber("leaf", broker=self.below.address.url)

    async def tier(self, name: str = "tier", **settings) -> SubscriberService:
        return await self._subscriber(
            name, broker=self.above.broker.address.url, republish_to=self.below.address.url, **settings
        )

    async def _subscriber(self, name: str, **settings) -> SubscriberService:
        settings = {"min_free_bytes": 0, "slices": "never"} | settings  # what is here may seem far when busy
        own = SubscriberSettings(listen=ANY_PORT, state=self._directory / name, **settings)
        return await self._stack.enter_async_context(SubscriberService(own))

    async def hear_all(self) -> None:
        """Wait until the leaf heard of each root twice: what is to be put right would be by then."""
        heard = self.leaf.view.alive.revision
        await until(lambda: self.leaf.view.alive.revision >= heard + 4)

    def seen(self, name: str) -> bool:
        root = self.leaf.catalogue.roots.get(name)
        return root is not None and root.fresh


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        two = Two(stack, tmp_path)
        await two.start()
        yield two


async def keys_of(service: BrokerService | SubscriberService, bucket: str) -> set[str]:
    async with service.bus.session() as client:
        found = await client.jetstream().stream_info(f"KV_{bucket}", subjects_filter=f"$KV.{bucket}.>")
        prefix = len(f"$KV.{bucket}.")
        keys = [subject[prefix:] for subject in found.state.subjects or {}]
        stored = await asyncio.gather(*(Bucket(client, bucket).get(key) for key in keys))
        return {key for key, value in zip(keys, stored, strict=True) if value.value is not None}


async def test_announces_what_the_publisher_does_as_it_is(two) -> None:
    tier = await two.tier(url="http://tier.example", republish_url="http://lan.example/tier")
    await until(lambda: two.seen("foo") and two.seen("bar"))
    root, original = two.leaf.catalogue.root("foo"), two.above.publisher.catalogue.root("foo")
    assert root.entries == original.entries
    assert root.url == "http://lan.example/tier"
    assert root.origin == original.instance
    assert root.via == (root.instance,)
    assert tier.url == "http://tier.example"


async def test_announces_only_the_roots_that_are_named(two) -> None:
    tier = await two.tier(republish=("bar", "later"))
    await until(lambda: two.seen("bar"))
    await until(lambda: tier.catalogue.root("foo").fresh)
    assert await keys_of(two.leaf, ROOTS) == {"bar"}


async def test_a_root_is_announced_when_all_of_it_is_known_and_not_before(two) -> None:
    """What is not known yet would be deleted below."""
    tier = await two.tier()
    await until(lambda: two.seen("foo"))
    tier.catalogue.set_root("later", url="http://p", instance="p")
    tier.catalogue.apply("later", "first", Entry("e1", 1, 1, "file", 0.0))
    await two.hear_all()
    assert "later" not in await keys_of(two.leaf, ROOTS)
    tier.catalogue.confirm("later")
    roots = two.leaf.catalogue.roots
    await until(lambda: "later" in roots and set(roots["later"].entries) == {"first"})


async def test_a_root_that_is_gone_above_is_gone_below(two) -> None:
    tier = await two.tier()
    await until(lambda: two.seen("foo") and two.seen("bar"))
    await two.above.stop("publisher")
    async with two.above.broker.bus.session() as client:
        await Bucket(client, ROOTS).delete("foo")
    await until(lambda: "foo" not in two.leaf.catalogue.roots)
    await until(lambda: "foo" not in tier.catalogue.roots)
    assert await keys_of(two.leaf, ROOTS) == {"bar"}
    assert await keys_of(two.leaf, DATA) == {"bar.x"}
    await two.above.start_publisher()  # and it can come back
    await until(lambda: two.seen("foo") and two.seen("bar"))


async def test_a_root_that_is_renamed_is_another_one_and_the_old_one_stays_unverified(two) -> None:
    await two.tier()
    await until(lambda: two.seen("foo") and two.seen("bar"))
    entries = dict(two.leaf.catalogue.root("foo").entries)
    await two.above.stop("publisher")
    two.above.roots["baz"] = two.above.roots.pop("foo")
    await two.above.start_publisher()
    await until(lambda: two.seen("baz") and two.seen("bar"))
    await until(lambda: not two.seen("foo"))
    assert two.leaf.catalogue.root("foo").entries == entries
    assert two.leaf.catalogue.root("foo").freshness.age_s < 60


async def test_a_tier_that_is_behind_takes_nothing_back(two, tmp_path) -> None:
    """It takes over while it is cut off, from one that knew more: what is later stays."""
    first = AsyncExitStack()
    settings = SubscriberSettings(
        listen=ANY_PORT,
        state=tmp_path / "first",
        min_free_bytes=0,
        broker=two.above.broker.address.url,
        republish_to=two.below.address.url,
    )
    await first.enter_async_context(SubscriberService(settings))
    await until(lambda: two.seen("foo"))
    second = await two.tier("second")
    await until(lambda: second.tier.health()["refused"].get("foo") and second.catalogue.root("foo").fresh)
    await _cut_off(second)
    (two.roots["foo"] / "x").write_text("changed")
    (two.roots["foo"] / "new").write_text("new")
    await until(lambda: "new" in two.leaf.catalogue.root("foo").entries)
    later = dict(two.above.publisher.catalogue.root("foo").entries)
    await until(lambda: two.leaf.catalogue.root("foo").entries == later)
    await first.aclose()
    await until(lambda: "foo" in second.tier.health()["republished"])
    events = []
    two.leaf.catalogue.listen(lambda event, _: events.append((event.kind, event.path)))
    await until(lambda: two.leaf.catalogue.root("foo").state == "online")
    await two.hear_all()
    assert two.leaf.catalogue.root("foo").entries == later
    assert await keys_of(two.leaf, DATA) == {"foo.x", "foo.new", "bar.x"}
    assert not two.leaf.catalogue.root("foo").fresh
    assert ("deleted", "foo/new") not in events


async def _cut_off(service: SubscriberService) -> None:
    """Let a subscriber hear nothing of its broker any more."""
    await service.bus.__aexit__()
    await until(lambda: not any(root.fresh for root in service.catalogue.roots.values()))
