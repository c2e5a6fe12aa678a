import shutil

import numpy as np
import pytest

from caterva2.cache.finished import FinishedCache, cache_in
from caterva2.errors import ConfigError, Corrupt, StateInUse
from caterva2.state import StateLock


@pytest.fixture
async def finished(opened, tmp_path, path):
    """The directory of a cache that has all of a dataset, and a part of none."""
    async with opened() as cached:
        await cached.fill(await cached.head(path))
    return tmp_path / "cache"


def manifest_of(directory, scratch, path):
    with FinishedCache(directory, scratch) as cache:
        row = cache.newest()[path.root][path.name]
        return row, cache.manifest(row), cache.file_of(row)


def test_where_a_cache_is(tmp_path):
    assert cache_in(tmp_path) is None
    (tmp_path / "state/cache/mirrors").mkdir(parents=True)
    assert cache_in(tmp_path / "state") is None
    (tmp_path / "state/cache/index.sqlite").touch()
    assert cache_in(tmp_path / "state") == cache_in(tmp_path / "state/cache") == tmp_path / "state/cache"


async def test_what_is_here_in_full(finished, tmp_path, path, data):
    row, manifest, file = manifest_of(finished, tmp_path / "scratch", path)
    assert (row.path, manifest[0].etag, manifest[0].size) == (path, row.etag, len(data))
    assert len(manifest[1]) == manifest[0].npages
    assert (finished / "mirrors" / file).read_bytes() == data
    assert not (tmp_path / "scratch").exists()


async def test_what_is_not(finished, tmp_path, path):
    (map_file,) = (finished / "mirrors").glob("*.map")
    present = map_file.read_bytes()
    for spoilt in (present.replace(b"\1", b"\0", 1), present[:-1], b""):
        map_file.write_bytes(spoilt)
        assert manifest_of(finished, tmp_path / "scratch", path)[1] is None
    map_file.unlink()
    assert manifest_of(finished, tmp_path / "scratch", path)[1] is None


async def test_a_damaged_manifest(finished, tmp_path, path, flip_blobs):
    flip_blobs(finished / "index.sqlite", {"pages": "page"})
    with pytest.raises(Corrupt):
        manifest_of(finished, tmp_path / "scratch", path)


async def test_a_subscriber_that_runs_keeps_others_off_and_the_other_way_round(finished, tmp_path, path):
    with StateLock(tmp_path), pytest.raises(StateInUse):
        manifest_of(finished, tmp_path / "scratch", path)
    with FinishedCache(finished, tmp_path / "scratch"):
        lock = StateLock(tmp_path)
        with pytest.raises(StateInUse):
            lock.acquire()
    with lock:
        pass


async def test_a_cache_that_cannot_be_read(finished, tmp_path, path):
    (finished / "index.sqlite").unlink()
    (finished / "index.sqlite").mkdir()
    with pytest.raises(ConfigError, match=str(finished)):
        manifest_of(finished, tmp_path / "scratch", path)


async def test_only_the_last_version_counts(opened, origin, tmp_path, path):
    async with opened() as cached:
        await cached.fill(await cached.head(path))
        origin.publish(path, np.random.default_rng(1).bytes(300_000))
        await cached.head(path)
    assert manifest_of(tmp_path / "cache", tmp_path / "scratch", path)[1] is None
    shutil.rmtree(tmp_path / "cache")
