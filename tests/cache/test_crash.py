"""kill -9 at any moment: nothing that was there is lost, nothing wrong is served."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from caterva2.cache.census import present_bytes
from caterva2.cache.pool import MirrorPool
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents

PATH = DatasetPath("foo", "data.b2nd")
KILLS = int(os.environ.get("CATERVA2_TEST_KILLS", "10"))


def run_and_kill(directory, file, seed, quota_bytes=0, reads=(1, 5, 20, 60)):
    """Let a process read through the cache, and kill it after some reads."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("kill_me.py")),
        str(directory),
        str(file),
        str(seed),
        str(quota_bytes),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            process.stdout.read(random.Random(seed).choice(reads))
        finally:
            process.kill()


async def test_killed_and_opened_again(opened, origin, array_bytes, tmp_path):
    file = tmp_path / "data.b2nd"
    file.write_bytes(array_bytes)
    directory = tmp_path / "cache"
    hits = 0
    origin.publish(PATH, array_bytes)
    etag_source = origin
    for seed in range(KILLS):
        run_and_kill(directory, file, seed)
        # the same bytes were published by the killed process, under an etag that depends on their order
        etag_source._generation = 0
        etag_source.publish(PATH, array_bytes)
        async with opened() as cached:
            head = await cached.head(PATH)
            extents = await all_extents(cached, head)
            believed = cached.state(PATH).cached_bytes
            pieces = await cached.read(head, extents)
            assert b"".join(pieces) == array_bytes
            assert cached.stats.rejected == 0
            assert believed == sum(e.size for e in extents) - sum(
                e.size for e in extents if (str(PATH), head.etag, e.number) in origin.reads
            )
            hits += cached.stats.hits
            assert cached.state(PATH).complete
            await cached.drop(PATH)
        origin.reads.clear()
    assert hits > 0
    assert MirrorPool(directory / "mirrors").names() == set()
    assert present_bytes(head, [], np.array([], np.int64))[0] == 0


async def test_killed_while_evicting(opened, origin, array_bytes, tmp_path):
    """With room for a third, nearly every read evicts; each byte that is still believed is right."""
    file = tmp_path / "data.b2nd"
    file.write_bytes(array_bytes)
    quota = len(array_bytes) // 3
    hits = 0
    for seed in range(KILLS):
        run_and_kill(tmp_path / "cache", file, seed, quota, reads=(40, 60, 90))
        origin._generation = 0
        origin.publish(PATH, array_bytes)
        async with opened(quota_bytes=quota) as cached:
            head = await cached.head(PATH)
            extents = await all_extents(cached, head)
            (version,) = cached._store.all_of(PATH)
            present = set(version.mirror.numbers().tolist())
            assert version.cached_bytes == sum(e.size for e in extents if e.number in present)
            # what the process had written when it was killed may not have been counted by it
            pieces = await cached.read(head, [e for e in extents if e.number in present])
            assert pieces == [array_bytes[e.offset : e.stop] for e in extents if e.number in present]
            assert (cached.stats.rejected, cached.stats.misses) == (0, 0)
            hits += cached.stats.hits
    assert hits > 0
