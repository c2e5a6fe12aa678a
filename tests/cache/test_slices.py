"""Slices in place of blocks: chosen, kept, given up, and followed by the blocks."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from caterva2.cache.slices import KEPT_BYTES
from caterva2.errors import IntegrityError, Unavailable, Unsupported
from caterva2.frame.write import write_array
from caterva2.model.path import DatasetPath
from caterva2.model.selection import parse_selection
from caterva2.source.planner import explaining
from caterva2.source.slices import Reader
from caterva2.testing.making import FarMaker
from caterva2.testing.origin import MemoryOrigin

ARRAY = np.random.default_rng(3).integers(0, 1 << 20, (64, 128, 256), np.int32)
PATH = DatasetPath("foo", "a.b2nd")


@pytest.fixture
def origin(tmp_path):
    write_array(tmp_path / "a.b2nd", ARRAY, chunks=(32, 64, 128), blocks=(4, 64, 128))
    return MemoryOrigin({PATH: (tmp_path / "a.b2nd").read_bytes()})


@pytest.fixture
def maker(origin):
    return FarMaker(origin)


@pytest.fixture
def reading(opened, maker, executor):
    """Open the cache, and read through it as a service does."""

    @asynccontextmanager
    async def reading(**options):
        async with opened(maker=lambda path: maker, **options) as cached:
            yield cached, Reader(cached, executor, limit_bytes=1 << 30, made=cached.slices)

    return reading


async def part(cached, reader, text):
    head = await cached.head(PATH)
    selection = parse_selection(text, ARRAY.shape)
    np.testing.assert_array_equal(await reader.array(head, selection), eval(f"ARRAY[{text or '...'}]"))


class TestChoice:
    @pytest.mark.parametrize("text", ["5, 5, 5", "7", ":, 9", "::3, ::-2, 250:", "-1, -1"])
    async def test_what_is_cut_is_made_far_away(self, reading, origin, maker, text):
        async with reading() as (cached, reader):
            await part(cached, reader, text)
            assert [*map(str, maker.made)] == [str(parse_selection(text, ARRAY.shape))]
            assert origin.calls["pages"] == 1  # of the maker
            assert cached.slices.stats.slices == 1

    async def test_what_is_whole_is_fetched_as_it_is_stored(self, reading, maker):
        async with reading() as (cached, reader):
            await part(cached, reader, "")
            assert not maker.made

    @pytest.mark.parametrize(("text", "made"), [("5, 5, 5", True), ("", False), ("3:3", False)])
    async def test_choice_is_known_before(self, reading, maker, text, made):
        async with reading() as (cached, reader):
            head = await cached.head(PATH)
            assert reader.is_made(head, parse_selection(text, ARRAY.shape)) == made
            assert not maker.made  # only asked
            await part(cached, reader, text)
            assert bool(maker.made) == made

    async def test_each_page_is_looked_for_once(self, reading, monkeypatch):
        """Those that are absent are looked for on the disk, and a plane has many pieces of one."""
        async with reading() as (cached, reader):
            head = await cached.head(PATH)
            looked_for, page = [], cached._store.page
            monkeypatch.setattr(
                cached._store, "page", lambda version, head, n: looked_for.append(n) or page(version, head, n)
            )
            assert reader.is_made(head, parse_selection("7", ARRAY.shape))
            assert looked_for == [0]

    async def test_nearby_blocks_are_fetched(self, reading, maker):
        maker.link.answered(0.0002)
        async with reading() as (cached, reader):
            await part(cached, reader, "5, 5, 5")
            assert not maker.made
            assert cached.stats.misses > 0

    async def test_what_is_here_is_asked_of_nobody(self, reading, origin, maker):
        async with reading() as (cached, reader):
            head = await cached.head(PATH)
            pages = await cached.pages(head, range(head.npages))
            first = [e for page in pages for e in page.extents()][:12]  # of chunk 0
            await cached.read(head, first)
            origin.calls.clear()
            await part(cached, reader, "2, 5, 5")
            assert not maker.made and not origin.calls
            await part(cached, reader, "40")
            assert len(maker.made) == 1

    async def test_also_after_a_restart(self, reading, origin, maker):
        async with reading() as (cached, _):
            head = await cached.head(PATH)
            pages = await cached.pages(head, range(head.npages))
            await cached.read(head, [e for page in pages for e in page.extents()][:12])
        async with reading() as (cached, reader):
            await part(cached, reader, "2, 5, 5")
            assert not maker.made
            assert cached.stats.verified > 0

    async def test_without_anybody_who_makes_them(self, opened, executor):
        async with opened() as cached:
            await part(cached, Reader(cached, executor, limit_bytes=1 << 30, made=cached.slices), "7")

    async def test_what_an_earlier_version_has_is_not_moved_again(self, reading, origin, maker):
        async with reading() as (cached, reader):
            await part(cached, reader, "")
            origin.publish(PATH, origin.data[PATH])
            before = origin.bytes_read
            await part(cached, reader, "7")
            assert not maker.made
            assert origin.bytes_read == before

    async def test_it_says_what_was_chosen(self, reading):
        async with reading() as (cached, reader):
            with explaining() as first:
                await part(cached, reader, "7")
            assert [choice for choice, _ in first.plans] == ["slice"]
            assert 0 < first.upstream_bytes < ARRAY[7].nbytes
            with explaining() as second:
                await part(cached, reader, "")
            assert second.server_timing().startswith('plan;desc="blocks"')
            assert second.upstream_bytes > ARRAY.nbytes / 2
            with explaining() as third:
                await part(cached, reader, "8")
            assert third.server_timing() == "cache;desc=hit"


class TestKept:
    async def test_the_very_same_is_asked_for_once(self, reading, maker):
        async with reading() as (cached, reader):
            for _ in range(3):
                await part(cached, reader, "7")
            assert len(maker.made) == 1
            assert cached.slices.stats.kept == 2
            assert 0 < cached.slices.kept_bytes < KEPT_BYTES

    async def test_also_by_many_at_once(self, reading, maker):
        maker.gate.clear()
        async with reading() as (cached, reader):
            await cached.head(PATH)
            readers = [asyncio.create_task(part(cached, reader, "7")) for _ in range(20)]
            await asyncio.sleep(0)
            maker.gate.set()
            await asyncio.gather(*readers)
            assert len(maker.made) == 1

    async def test_not_of_another_version(self, reading, origin, maker):
        async with reading() as (cached, reader):
            await part(cached, reader, "7")
            origin.publish(PATH, origin.data[PATH])
            await part(cached, reader, "7")
            assert len(maker.made) == 2

    async def test_slabs_are_had_ahead(self, reading, maker, executor):
        async with reading() as (cached, reader):
            head = await cached.head(PATH)
            selection = parse_selection(":, 3:60, 100:160", ARRAY.shape)
            async for slab in reader.slabs(head, selection):
                async with reader.slab(head, slab) as got:
                    assert got.copy(0, 4) is not None
            assert cached.slices.stats.kept == len(maker.made) > 0


class TestFallback:
    @pytest.mark.parametrize(
        "error", [Unavailable("gone"), IntegrityError("foo", "far", 0, 1), Unsupported("old"), TimeoutError()]
    )
    async def test_blocks_are_fetched_in_place_of_what_does_not_come(self, reading, origin, maker, error):
        maker.failures.append(error)
        async with reading() as (cached, reader):
            await part(cached, reader, "7")
            assert origin.calls["read"] > 0
            assert cached.slices.stats.failed == 1
            assert cached.slices.stats.rejected == isinstance(error, IntegrityError)
            await part(cached, reader, "20")
            assert len(maker.made) == 1  # not asked again for a while

    async def test_one_that_stalls_is_given_up(self, reading, maker, monkeypatch):
        monkeypatch.setattr("caterva2.cache.slices.LEAST_PATIENCE_S", 0.0)
        maker.gate.clear()
        async with reading() as (cached, reader):
            await part(cached, reader, "7")
            assert cached.slices.stats.failed == 1

    async def test_a_later_version_is_no_failure_of_the_host(self, reading, origin, maker):
        from caterva2.errors import Changed

        maker.failures.append(Changed(str(PATH), "old"))
        async with reading() as (cached, reader):
            await part(cached, reader, "7")
            await part(cached, reader, "30")
            assert len(maker.made) == 2


class TestFollowUp:
    async def test_what_is_read_again_comes_to_be_here(self, reading, origin, maker, until):
        async with reading() as (cached, reader):
            await part(cached, reader, "5, 5, 5")
            assert not cached.slices.stats.followed_up
            await part(cached, reader, "6, 6, 6")  # of the same block
            await until(lambda: cached.state(PATH).cached_bytes > 0 and not cached._follow_ups.under_way)
            origin.calls.clear()
            await part(cached, reader, "7, 7, 7")
            assert not origin.calls
            assert len(maker.made) == 2
            assert cached.state(PATH).cached_bytes < 0.1 * len(origin.data[PATH])

    async def test_what_is_followed_comes_at_once(self, reading, until):
        async with reading(rank=lambda path: 1) as (cached, reader):
            await part(cached, reader, "5")
            await until(lambda: cached.slices.stats.followed_up and not cached._follow_ups.under_way)
            assert cached.state(PATH).cached_bytes > ARRAY[:4].nbytes / 2

    async def test_what_would_push_out_the_rest_does_not(self, reading):
        async with reading(rank=lambda path: 1, quota_bytes=1 << 20) as (cached, reader):
            await part(cached, reader, "5")
            assert not cached.slices.stats.followed_up

    async def test_closing_ends_it(self, reading, origin):
        async with reading(rank=lambda path: 1) as (cached, reader):
            origin.gate.clear()
            slicing = asyncio.create_task(part(cached, reader, "5"))
            await asyncio.sleep(0.05)
            slicing.cancel()
            await asyncio.gather(slicing, return_exceptions=True)
        assert not cached._follow_ups.under_way
        origin.gate.set()
