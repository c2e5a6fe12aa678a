import sqlite3
from contextlib import closing

import pytest

from caterva2.cache.disk import Disk
from caterva2.cache.index import Index
from caterva2.cache.inventory import Inventory
from caterva2.cache.manifests import Manifests
from caterva2.cache.version import CacheStats
from caterva2.model.path import DatasetPath


@pytest.fixture
def stats():
    return CacheStats()


@pytest.fixture
async def inventory(tmp_path, executor, stats):
    disk = Disk(tmp_path, executor, stats)
    inventory = Inventory(tmp_path / "cache", durable=False, disk=disk, stats=stats)
    await inventory.open()
    yield inventory
    await disk.close()
    await inventory.close()


@pytest.fixture
def manifests(inventory, tmp_path, executor, stats):
    """Make one that has nothing in memory."""
    return lambda: Manifests(inventory, Disk(tmp_path, executor, stats), stats)


@pytest.fixture
async def published(origin, array_bytes):
    path = DatasetPath("foo", "x.b2nd")
    origin.publish(path, array_bytes)
    head = await origin.head(path)
    return head, await origin.pages(head, range(head.npages))


async def test_kept_in_the_index(manifests, published):
    head, pages = published
    first = manifests()
    version = await first.add(head)
    assert await first.add(head) is version
    await first.add_pages(version, pages)
    for kept in (first, manifests()):
        assert kept.head(version).encode() == head.encode()
        assert kept.page(version, head, 0).encode() == pages[0].encode()
        assert kept.page(version, head, 99) is None


@pytest.mark.parametrize("place", [0, 0.5, 0.999])
async def test_what_is_damaged_on_disk_is_not_here(manifests, published, flip_blobs, tmp_path, stats, place):
    head, pages = published
    first = manifests()
    version = await first.add(head)
    await first.add_pages(version, pages)
    flip_blobs(tmp_path / "cache" / "index.sqlite", {"versions": "head", "pages": "page"}, place)
    assert manifests().head(version) is None
    assert manifests().page(version, head, 0) is None
    assert stats.damaged == 2

    await manifests().add_pages(version, pages)  # fetched again
    assert manifests().page(version, head, 0).encode() == pages[0].encode()
    assert (stats.damaged, stats.disk_errors) == (2, 0)


async def test_what_is_in_memory_is_not_decoded_again(manifests, published, monkeypatch):
    head, pages = published
    first = manifests()
    await first.add_pages(await first.add(head), pages)
    warm = manifests()
    version = await warm.add(head)
    found = warm.head(version), warm.page(version, head, 0)
    monkeypatch.setattr(Index, "head", None)
    monkeypatch.setattr(Index, "page", None)
    assert (warm.head(version), warm.page(version, head, 0)) == found


async def test_in_memory_where_the_disk_takes_nothing(manifests, published, inventory, monkeypatch, stats):
    head, pages = published

    def full(*args, **kwargs):
        raise OSError("full")

    monkeypatch.setattr(Index, "add", full)
    kept = manifests()
    version = await kept.add(head)
    await kept.add_pages(version, pages)
    assert (version.id, version.mirror, stats.degraded) == (0, None, True)
    assert kept.head(version) is head
    assert kept.page(version, head, 0) is pages[0]


async def test_a_sound_head_of_another_version_is_not_believed(manifests, published, origin, tmp_path, stats):
    head, _ = published
    first = manifests()
    version = await first.add(head)
    other = DatasetPath("foo", "y.bin")
    origin.publish(other, b"something else")
    encoded = (await origin.head(other)).encode()
    with closing(sqlite3.connect(tmp_path / "cache" / "index.sqlite")) as index, index:
        index.execute("UPDATE versions SET head = ? WHERE id = ?", (encoded, version.id))
    assert manifests().head(version) is None
    assert stats.damaged == 1
