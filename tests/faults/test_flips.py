"""Bytes that change on disk behind a service's back: each is found, counted and fetched or made again.

Bytes that change on the network are in ``tests/source/test_http.py``.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from caterva2.client import connect
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents
from caterva2.testing.memory import FileSource

FLIPS = 40
REJECTED = "caterva2_subscriber_cache_rejected"
DAMAGED = "caterva2_subscriber_cache_damaged"
DAMAGED_ORIGINALS = "caterva2_publisher_source_damaged"


@pytest.fixture
def cache(site):
    return site.directory / "subscriber" / "cache"


@pytest.fixture
def mirrors(root, cache):
    """Find the mirror of each published file: once all was read, it has the same bytes."""

    def mirrors():
        by_bytes = {file.read_bytes(): file for file in (cache / "mirrors").glob("*.data")}
        return {file: by_bytes[file.read_bytes()] for file in root.iterdir()}

    return mirrors


async def extents_of(file):
    path = DatasetPath("foo", file.name)
    source = FileSource(file, path)
    return await all_extents(source, await source.head(path))


def flip(file, offset, chance):
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


async def test_each_flipped_byte_is_found_and_none_is_served(
    start, restart, ask, root, mirrors, read_all_right
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    _, subscriber = start()
    read_all_right(subscriber.url("subscriber"))
    subscriber.stop()

    extents = [(file, extent) for file in root.iterdir() for extent in await extents_of(file)]
    mirror_of = mirrors()
    for file, extent in chance.sample(extents, FLIPS):
        flip(mirror_of[file], chance.randrange(extent.offset, extent.stop), chance)

    again = restart()
    url = again.url("subscriber")
    read_all_right(url)
    assert ask.metric(url, REJECTED) == FLIPS
    fetched = ask.metric(url, "caterva2_subscriber_cache_misses")
    read_all_right(url)
    assert ask.metric(url, REJECTED) == FLIPS
    assert ask.metric(url, "caterva2_subscriber_cache_misses") == fetched
    again.stop()
    assert mirrors()  # what was wrong has been mended on disk


async def test_none_is_sent_as_it_is_stored_either(
    start, restart, ask, root, mirrors, arrays, read_all_right
) -> None:
    """To our client, which decodes itself."""
    _, subscriber = start()
    read_all_right(subscriber.url("subscriber"))
    subscriber.stop()
    chance, mirror_of = random.Random(5), mirrors()
    files = [root / name for name in arrays]
    for file in files:
        extent = next(e for e in await extents_of(file) if e.size > 1000)
        flip(mirror_of[file], chance.randrange(extent.offset, extent.stop), chance)

    again = restart()
    with connect(again.url("subscriber")) as client:
        for name, array in arrays.items():
            opened = client[f"foo/{name}"]
            opened[0, 0, 0]  # without Blosc2, if it is the first
            np.testing.assert_array_equal(opened[...], array)
    assert ask.metric(again.url("subscriber"), REJECTED) == len(files)


def test_a_presence_map_that_claims_everything_is_not_believed(
    start, restart, ask, cache, arrays, read_all_right
) -> None:
    _, subscriber = start()
    for name in arrays:
        ask.part(subscriber.url("subscriber"), name, "3")
    subscriber.stop()
    for file in (cache / "mirrors").glob("*.map"):
        file.write_bytes(b"\1" * file.stat().st_size)

    url = restart().url("subscriber")
    read_all_right(url)
    assert ask.metric(url, REJECTED) > 0


def test_an_index_that_is_junk_is_put_aside(start, restart, ask, cache, read_all_right) -> None:
    _, subscriber = start()
    read_all_right(subscriber.url("subscriber"))
    subscriber.stop()
    index = cache / "index.sqlite"
    index.write_bytes(random.Random(1).randbytes(index.stat().st_size))

    read_all_right(restart().url("subscriber"))
    assert index.with_name("index.sqlite.damaged").exists()


@pytest.mark.parametrize("columns", [{"versions": "head"}, {"pages": "page"}], ids=str)
def test_manifests_that_changed_in_the_index_are_fetched_again(
    start, restart, ask, cache, read_all_right, flip_blobs, columns
) -> None:
    _, subscriber = start()
    read_all_right(subscriber.url("subscriber"))
    subscriber.stop()
    flipped = flip_blobs(cache / "index.sqlite", columns)
    assert flipped

    for found in (flipped, 0):  # what was wrong has been mended on disk
        again = restart()
        read_all_right(again.url("subscriber"))
        assert ask.metric(again.url("subscriber"), DAMAGED) == found
        again.stop()


def test_manifests_that_changed_in_the_publisher_s_state_are_made_again(
    site, start, restart, ask, root, read_all_right, flip_blobs
) -> None:
    publisher, subscriber = start()
    read_all_right(subscriber.url("subscriber"))
    subscriber.stop()
    listen = publisher.url("publisher").removeprefix("http://")
    state = site.directory / "publisher"
    publisher.stop()
    flipped = flip_blobs(state / "publisher.sqlite", {"heads": "head", "pages": "page"})
    assert flipped

    for number, found in enumerate((flipped, 0)):
        again = site.start("publisher", "foo", str(root), "--listen", listen, "--state", str(state))
        asked = restart(f"another subscriber {number}")
        read_all_right(asked.url("subscriber"))
        assert ask.metric(again.url("publisher"), DAMAGED_ORIGINALS) == found
        asked.stop()
        again.stop()


def test_mirrors_cut_short_are_fetched_again(start, restart, cache, read_all_right) -> None:
    _, subscriber = start()
    read_all_right(subscriber.url("subscriber"))
    subscriber.stop()
    for number, file in enumerate(sorted((cache / "mirrors").iterdir())):
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size * (number % 3) // 3)

    read_all_right(restart().url("subscriber"))
