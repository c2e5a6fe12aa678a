"""Reads at random through a cache until it is killed.

Arguments: the cache's directory, the file, a seed, and the quota in bytes, 0 for none.
"""

import asyncio
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from caterva2.cache.cached import CachedSource
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents
from caterva2.testing.origin import MemoryOrigin

PATH = DatasetPath("foo", "data.b2nd")


async def main(directory, file, seed, quota_bytes):
    origin = MemoryOrigin({PATH: Path(file).read_bytes()})
    chance = random.Random(seed)
    with ThreadPoolExecutor(3) as executor:
        cached = CachedSource(
            Path(directory),
            current=origin.entry,
            origin=lambda path: origin,
            quota_bytes=quota_bytes or None,
            executor=executor,
        )
        await cached.open()
        print("ready", flush=True)
        while True:
            head = await cached.head(PATH)
            extents = await all_extents(cached, head)
            for _ in range(2 * len(extents)):
                wanted = chance.sample(extents, 4)
                await asyncio.gather(cached.read(head, wanted[:3]), cached.read(head, wanted[2:]))
                print("x", end="", flush=True)
            if not quota_bytes:
                await cached.drop(PATH)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
