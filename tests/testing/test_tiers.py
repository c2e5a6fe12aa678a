"""A second tier: it has what the first has, from the first, and follows its changes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import numpy as np

from caterva2.broker.service import BrokerService
from caterva2.config import BrokerSettings, SubscriberSettings
from caterva2.frame.write import write_array
from caterva2.model.path import DatasetPath
from caterva2.model.selection import parse_selection
from caterva2.subscriber.service import SubscriberService
from caterva2.testing.cluster import ANY_PORT, Cluster
from caterva2.testing.tiers import announce_again
from caterva2.testing.waiting import until

PATH = DatasetPath("foo", "x.b2nd")


async def test_a_second_tier_reads_through_the_first(tmp_path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_array(root / PATH.name, np.arange(100), chunks=[10])
    async with Cluster(tmp_path / "state", {"foo": root}) as cluster, AsyncExitStack() as stack:
        first = cluster.subscriber
        below = await stack.enter_async_context(
            BrokerService(BrokerSettings(listen=ANY_PORT, state=tmp_path / "broker 2"))
        )
        second = await stack.enter_async_context(
            SubscriberService(
                SubscriberSettings(
                    listen=ANY_PORT,
                    state=tmp_path / "subscriber 2",
                    broker=below.address.url,
                    min_free_bytes=0,
                )
            )
        )
        tier = asyncio.create_task(
            announce_again(cluster.broker.address.url, below.address.url, "foo", url=first.address.url)
        )
        await until(lambda: "foo" in second.catalogue.roots and second.catalogue.root("foo").fresh)
        assert second.catalogue.root("foo").entries == first.catalogue.root("foo").entries
        assert second.catalogue.root("foo").url == first.address.url

        head = await second.source.head(PATH)
        got = await second.reader.array(head, parse_selection("5:15", [100]))
        assert np.array_equal(got, np.arange(5, 15))
        assert first.source.stats.misses > 0, "the first tier fetched it for the second"

        write_array(root / PATH.name, np.ones(100), chunks=[10])
        await until(lambda: second.catalogue.entry(PATH).generation > head.generation)
        assert second.catalogue.entry(PATH) == cluster.publisher.catalogue.entry(PATH)

        tier.cancel()
        await asyncio.gather(tier, return_exceptions=True)
        await until(lambda: second.catalogue.root("foo").state == "offline")
