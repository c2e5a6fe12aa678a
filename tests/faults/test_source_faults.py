"""A publisher whose answers go wrong: what a subscriber serves is right, or a clean error, and soon.

More reads: ``CATERVA2_TEST_READS=5000``; the same ones again: ``CATERVA2_SEED``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.http.bodies import WHOLE_BYTES
from caterva2.http.problems import MEDIA_TYPE, PREFIX
from caterva2.model.path import DatasetPath
from caterva2.testing.faults import Fault

READS = int(os.environ.get("CATERVA2_TEST_READS", "400"))
SEED = int(os.environ.get("CATERVA2_SEED", random.randrange(1 << 32)))
READERS = 6

RAW = {"Accept": "application/vnd.caterva2.raw"}
HANGS_S = 20.0
PATIENCE_S = 1.0
"""How long the publisher may be silent here."""

chance = np.random.default_rng(11)
ARRAYS = {
    "small.b2nd": chance.integers(0, 1 << 14, (48, 80, 100), np.uint16),
    "large.b2nd": chance.integers(0, 1 << 14, (64, 256, 256), np.uint16),
}
PLAIN = chance.bytes(1_500_011)


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> dict[str, bytes]:
    directory: Path = tmp_path_factory.mktemp("published")
    layouts = {
        "small.b2nd": ((16, 40, 50), (4, 20, 50)),
        "large.b2nd": ((16, 256, 256), (2, 64, 128)),
    }
    files = {
        name: write_array(directory / name, array, chunks=layouts[name][0], blocks=layouts[name][1])
        for name, array in ARRAYS.items()
    }
    return {name: file.read_bytes() for name, file in files.items()} | {"plain.bin": PLAIN}


@pytest.fixture
async def site(beside, published):
    return await beside(published, upstream_timeout_s=PATIENCE_S, gap_bytes=0)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=HANGS_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


def part(name: str, selection: str) -> str:
    return f"/api/fetch/foo/{name}?slice_={quote(selection)}"


async def ask(session, site, target: str, **headers: str) -> tuple[int, Any, bytes]:
    async with session.get(site.url + target, headers=RAW | headers) as answer:
        return answer.status, answer.headers, await answer.read()


# -- one fault after the other -----------------------------------------------------------------------

ASKED_AGAIN = ["truncate", "short", "long", "no-etag", "content-range", "whole", "junk"]
PARTS = ["missing-part", "no-end"]
REFUSED = ["503", "500", "stall", "stall-midway"]

ONE_RANGE, MANY_RANGES = "16:32", ":, :40, :50"


@pytest.mark.parametrize(
    ("kind", "times", "status", "counted"),
    [
        ("slow", 1, 200, {}),
        ("flip", 1, 200, {"rejected": 1}),
        ("flip", 2, 502, {"rejected": 2}),
        *((kind, 1, 200, {"retries": 1}) for kind in ASKED_AGAIN + PARTS),
        *((kind, 2, 503, {"retries": 1, "errors": 1}) for kind in ASKED_AGAIN + PARTS),
        ("reset", 6, 503, {"errors": 1}),
        *((kind, 1, 503, {"errors": 1}) for kind in REFUSED),
        ("etag", 1, 200, {}),
        ("etag", 9, 412, {}),
    ],
)
async def test_each_fault(site, session, kind, times, status, counted) -> None:
    """What one fault makes of an answer, what is counted, and that nothing of it stays."""
    target = part("small.b2nd", MANY_RANGES if kind in PARTS else ONE_RANGE)
    right = ARRAYS["small.b2nd"][:, :40, :50] if kind in PARTS else ARRAYS["small.b2nd"][16:32]
    await ask(session, site, part("small.b2nd", "0"))  # the manifest
    counter_names = ("rejected", "retries", "errors")
    stats = site.subscriber.origins.stats
    before = [getattr(stats, name) for name in counter_names]
    site.publisher.faults.append(Fault(kind, times))
    got, headers, body = await ask(session, site, target)
    assert got == status, body
    if status == 200:
        assert body == right.tobytes()
    else:
        judge_problem(got, headers, body)
    after = [getattr(stats, name) for name in counter_names]
    changed = {n: a - b for n, a, b in zip(counter_names, after, before, strict=True) if a != b}
    if kind == "reset":  # a request may also be repeated below, on another connection
        assert changed.pop("retries", 1) == 1
    assert changed == counted
    assert 0 < site.publisher.spoilt[kind] <= times
    _, _, metrics = await ask(session, site, "/metrics")
    for name in counter_names:
        assert f"caterva2_subscriber_upstream_{name}_total {float(getattr(stats, name))}" in metrics.decode()
    site.publisher.faults.clear()
    assert (await ask(session, site, target))[::2] == (200, right.tobytes())
    (found,) = await site.subscriber.source.fsck(DatasetPath("foo", "small.b2nd"))
    assert found.sound and found.extents > 0


def judge_problem(status: int, headers: Any, body: bytes) -> None:
    """Check that an error is one that a client can understand."""
    assert headers["Content-Type"] == MEDIA_TYPE
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["type"].startswith(PREFIX) and problem["detail"]
    if status == 503:
        assert int(headers["Retry-After"]) > 0


FLIPS = 60


@pytest.mark.parametrize("what", ["head", "pages"])
async def test_no_flipped_bit_of_a_manifest_is_believed(beside, session, tmp_path, what) -> None:
    """What says whether a chunk is all zeros or all NaN, or what the shape is, is sealed."""
    array = np.zeros((40, 30, 20))
    array[20:] = np.random.default_rng(5).random((20, 30, 20))
    file = write_array(tmp_path / "zeros.b2nd", array, chunks=(10, 30, 20), blocks=(5, 15, 20))
    site = await beside({"zeros.b2nd": file.read_bytes()})
    path = DatasetPath("foo", "zeros.b2nd")
    asked = [part("zeros.b2nd", ""), "/api/info/foo/zeros.b2nd", "/data/foo/zeros.b2nd"]

    async def ask_all() -> list[tuple[int, bytes]]:
        answers = [await ask(session, site, target) for target in asked]
        return [(status, strip(body)) for status, _, body in answers]

    right = await ask_all()
    assert right[0] == (200, array.tobytes()) and right[2] == (200, file.read_bytes())
    stats = site.subscriber.origins.stats
    for number in range(FLIPS):
        await site.subscriber.source.drop(path)
        if what == "pages":
            await ask(session, site, "/api/info/foo/zeros.b2nd")  # the head is here
        site.publisher.faults.append(Fault("flip", route="/api/manifest/", where=number / FLIPS))
        assert await ask_all() == right
        assert stats.retries == number + 1
    assert site.publisher.spoilt["flip"] == FLIPS


def strip(body: bytes) -> bytes:
    """Leave out of an answer what changes."""
    if not body.startswith(b"{"):
        return body
    changing = ("age_s", "cached_bytes", "complete", "freshness")
    return json.dumps({k: v for k, v in json.loads(body).items() if k not in changing}).encode()


# -- many, at random ---------------------------------------------------------------------------------

FAULTS = ["flip"] * 6 + ["truncate", "reset", "slow", "junk"] * 2 + ASKED_AGAIN + PARTS
FAULTS += ["503", "500", "stall", "stall-midway", "etag"]


class Judge:
    """Asks for random parts while answers are spoilt, and compares what comes with what is published."""

    def __init__(self, session, site, chance: random.Random, routes: dict[str, list[str]]) -> None:
        self.session = session
        self.site = site
        self.chance = chance
        self.routes = routes
        self.left = READS
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.unexpected: list[Any] = []

    def question(self) -> tuple[str, dict[str, str], bytes]:
        """Return what to ask for, and what should come."""
        chance = self.chance
        if chance.random() < 0.25:
            name, data = chance.choice(list(self.site.origin.data.items()))
            start, stop = sorted(chance.randrange(len(data)) for _ in range(2))
            return f"/data/{name}", {"Range": f"bytes={start}-{stop}"}, data[start : stop + 1]
        if chance.random() < 0.15:
            return "/api/download/foo/plain.bin", {}, PLAIN
        name = chance.choice(list(ARRAYS))
        array = ARRAYS[name]
        if chance.random() < 0.1:
            return part(name, ""), {}, array.tobytes()
        starts = [chance.randrange(n) for n in array.shape]
        stops = [chance.randrange(start, n) + 1 for start, n in zip(starts, array.shape, strict=True)]
        key = tuple(slice(*ends) for ends in zip(starts, stops, strict=True))
        text = ", ".join(f"{s.start}:{s.stop}" for s in key)
        return part(name, text), {}, array[key].tobytes()

    async def run(self) -> None:
        await asyncio.gather(*(self.reader() for _ in range(READERS)))

    async def reader(self) -> None:
        while self.left > 0:
            self.left -= 1
            if self.chance.random() < 0.6:
                path = self.chance.choice(list(self.site.origin.data))
                await self.site.subscriber.source.drop(path)
            self.spoil()
            await self.ask()

    def spoil(self) -> None:
        faults = self.site.publisher.faults
        faults[:] = [fault for fault in faults if fault.times]
        if len(faults) < 4 and self.chance.random() < 0.6:
            route = self.chance.choice(list(self.routes))
            kind = self.chance.choice(self.routes[route])
            faults.append(Fault(kind, self.chance.choice([1, 1, 2, 3]), route, self.chance.random()))

    async def ask(self) -> None:
        target, headers, right = self.question()
        try:
            status, answered, body = await ask(self.session, self.site, target, **headers)
        except aiohttp.ClientPayloadError:
            assert len(right) > WHOLE_BYTES, target
            self.outcomes["broken off"] += 1
            return
        except TimeoutError:
            self.outcomes["hung"] += 1
            return
        self.outcomes[str(status)] += 1
        if status in (200, 206):
            if body != right:
                self.wrong.append(target)
        else:
            if status not in (412, 502, 503):
                self.unexpected.append((status, target, body))
            judge_problem(status, answered, body)

    def report(self) -> str:
        stats = self.site.subscriber.origins.stats
        return (
            f"{READS} reads: {json.dumps(self.outcomes)}, {len(self.wrong)} wrong; "
            f"{self.site.publisher.spoilt.total()} answers spoilt {json.dumps(self.site.publisher.spoilt)}; "
            f"rejected {stats.rejected}, retries {stats.retries}, errors {stats.errors}"
        )

    async def all_is_right_now(self) -> None:
        """Read everything without faults; nothing wrong has been kept."""
        self.site.publisher.faults.clear()
        for name, array in ARRAYS.items():
            assert (await ask(self.session, self.site, part(name, "")))[::2] == (200, array.tobytes())
        for path, data in self.site.origin.data.items():
            assert (await ask(self.session, self.site, f"/data/{path}"))[::2] == (200, data)
            for found in await self.site.subscriber.source.fsck(path):
                assert found.sound and found.bytes == len(data)


@pytest.mark.timeout(120 + READS // 2)
async def test_no_wrong_byte_is_served(site, session, capsys) -> None:
    print(f"CATERVA2_SEED={SEED}")
    judge = Judge(session, site, random.Random(SEED), {"/data/": FAULTS})
    await judge.run()
    with capsys.disabled():
        print(f"\n{judge.report()}")
    stats = site.subscriber.origins.stats
    assert not judge.wrong
    assert not judge.unexpected
    assert not judge.outcomes["hung"]
    assert min(stats.rejected, stats.retries, stats.errors) > 0
    assert judge.outcomes["200"] + judge.outcomes["206"] > READS / 4
    await judge.all_is_right_now()


@pytest.mark.timeout(120 + READS // 2)
async def test_no_wrong_byte_is_served_when_manifests_are_spoilt(site, session, capsys) -> None:
    print(f"CATERVA2_SEED={SEED}")
    judge = Judge(session, site, random.Random(SEED), {"/api/manifest/": FAULTS, "/data/": FAULTS})
    await judge.run()
    with capsys.disabled():
        print(f"\n{judge.report()}")
    assert not judge.wrong
    assert not judge.unexpected
    assert not judge.outcomes["hung"]
    await judge.all_is_right_now()
