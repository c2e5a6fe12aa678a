"""To whom a root belongs where publishers and tiers want it."""

import time

import pytest

from caterva2.bus.announcer import OURS
from caterva2.bus.buckets import ROOTS, Bucket
from caterva2.bus.claims import refusal
from caterva2.bus.records import Claim

ORIGIN = Claim("origin", "http://origin")
OTHER = Claim("other", "http://other")


def tier(instance, *before, origin="origin"):
    return Claim(instance, f"http://{instance}", origin=origin, via=(*before, instance))


@pytest.mark.parametrize(
    ("mine", "owner", "reason"),
    [
        (ORIGIN, OTHER, None),
        (ORIGIN, tier("t"), None),
        (ORIGIN, tier("t", origin="other"), None),
        (tier("t"), ORIGIN, "comes from there"),
        (tier("t"), OTHER, "belongs to another"),
        (tier("t"), tier("u"), None),
        (tier("t"), tier("u", "v"), None),
        (tier("t"), tier("u", origin="other"), "belongs to another"),
        (tier("t", "u"), tier("u"), "comes from there"),
        (tier("t", "u", "v"), tier("v", "u"), "comes from there"),
        (tier("t", "u", "v"), tier("w"), None),
    ],
)
def test_what_a_tier_never_takes_over(mine, owner, reason):
    said = refusal("foo", mine, owner)
    assert (said is None) == (reason is None)
    if reason is not None:
        assert reason in said
        assert owner.url in said


@pytest.fixture
def announce_as(announce):
    """Announce the root as a tier that knows it completely."""

    async def announce_as(claim, entries=None, root="foo"):
        mine = await announce(root, instance=claim.instance, entries=entries, claim_of=lambda _: claim)
        mine.catalogue.confirm(root)
        return mine

    return announce_as


@pytest.fixture
def put_claim(bus):
    async def put_claim(root, claim):
        async with bus.session() as client:
            await Bucket(client, ROOTS).put(root, claim.encode())

    return put_claim


@pytest.fixture
def get_claim(bus):
    async def get_claim():
        async with bus.session() as client:
            return Claim.decode((await Bucket(client, ROOTS).get("foo")).value)

    return get_claim


async def test_an_origin_takes_back_at_once_what_a_tier_holds_for_it(
    announce, announce_as, get_claim, make_entry, eventually
):
    entries = {"a": make_entry()}
    held = await announce_as(tier("t"), entries)
    await eventually(lambda: held.announcer.in_sync)
    origin = await announce(instance="origin", entries=entries)
    began = time.monotonic()
    await eventually(lambda: origin.announcer.claims["foo"] == OURS)
    assert time.monotonic() - began < 4  # not when the tier is gone, which takes six
    await eventually(lambda: "comes from there" in held.announcer.claims["foo"])
    assert await get_claim() == Claim("origin", "http://origin:8001", "A title")


async def test_from_who_is_gone_a_tier_takes_only_what_is_of_its_origin(
    announce, announce_as, put_claim, get_claim, eventually
):
    await put_claim("foo", ORIGIN)  # no heartbeats come, of none of them
    await put_claim("bar", tier("gone"))
    wanting = await announce_as(tier("t"))
    others = [await announce_as(tier("u", origin="other"), root=root) for root in ("foo", "bar")]
    standby = await announce_as(tier("t", "further"), root="bar")
    publisher = await announce(instance="other")
    await eventually(lambda: standby.announcer.claims["bar"] == OURS)
    await eventually(lambda: publisher.announcer.claims["foo"] == OURS)  # so that it was gone by then
    assert (await get_claim()).instance == "other"
    assert OURS not in wanting.announcer.claims.values()
    assert "belongs to another" in others[1].announcer.claims["bar"]


async def test_what_a_root_comes_through_is_claimed_anew_when_it_changes(
    announce, observe, get_claim, make_entry, agree, eventually
):
    """Without a moment in which it is offline."""
    claims = {"foo": tier("t")}
    mine = await announce(instance="t", entries={"a": make_entry()}, claim_of=claims.__getitem__)
    mine.catalogue.confirm("foo")
    _, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    assert (seen.root("foo").origin, seen.root("foo").via) == ("origin", ("t",))
    events = []
    seen.listen(lambda event, _: events.append(event.kind))
    claims["foo"] = tier("t", "above")
    await eventually(lambda: seen.root("foo").via == ("above", "t") and mine.announcer.in_sync)
    claims["foo"] = tier("t", "above", origin="replaced")
    await eventually(lambda: seen.root("foo").origin == "replaced" and mine.announcer.in_sync)
    assert events == []


async def test_of_a_root_that_a_tier_does_not_know_any_more_it_says_nothing(
    announce_as, observe, make_entry, agree, eventually
):
    mine = await announce_as(tier("t"), {"a": make_entry()})
    view, seen = await observe()
    await eventually(lambda: agree(seen, mine.catalogue))
    mine.catalogue.remove_root("foo")
    for _ in range(2):
        heard = view.alive.revision
        mine.announcer.beat_soon()
        await eventually(lambda heard=heard: view.alive.revision > heard)
    assert seen.root("foo").state == "online"
