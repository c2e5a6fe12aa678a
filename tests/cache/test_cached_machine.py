"""Whatever happens in whatever order: the answer is the published bytes, and the store is what it says."""

import asyncio
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from caterva2.cache.cached import CachedSource
from caterva2.errors import Changed
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents
from caterva2.testing.origin import MemoryOrigin

PATHS = [DatasetPath("foo", name) for name in ("a", "b", "c")]
QUOTA = 6 * PAGE
paths = st.sampled_from(PATHS)


class CacheMachine(RuleBasedStateMachine):
    """A cache, its origin, and the bytes that each dataset has."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.executor = ThreadPoolExecutor(2)
        self.origin = MemoryOrigin()
        self.old = {}

    @initialize(quota=st.sampled_from([None, QUOTA]))
    def start(self, quota):
        self.quota = quota
        for path in PATHS:
            self.origin.publish(path, random.Random(path.name).randbytes(3 * PAGE + 5))
        self.open()

    def run(self, work):
        return self.loop.run_until_complete(work)

    def open(self):
        self.cached = CachedSource(
            self.directory,
            current=self.origin.entry,
            origin=lambda path: self.origin,
            quota_bytes=self.quota,
            executor=self.executor,
        )
        self.run(self.cached.open())

    @rule(path=paths, picks=st.lists(st.integers(0, 10), max_size=6))
    def read(self, path, picks):
        async def read():
            head = await self.cached.head(path)
            extents = await all_extents(self.cached, head)
            wanted = [extents[pick % len(extents)] for pick in picks] if extents else []
            return wanted, await self.cached.read(head, wanted)

        wanted, pieces = self.run(read())
        data = self.origin.data[path]
        assert pieces == [data[extent.offset : extent.stop] for extent in wanted]

    @rule(path=paths, ends=st.tuples(st.integers(0, 5 * PAGE), st.integers(0, 5 * PAGE)))
    def stream(self, path, ends):
        async def stream():
            head = await self.cached.head(path)
            start, stop = sorted(min(end, head.size) for end in ends)
            return start, stop, b"".join([piece async for piece in self.cached.stream(head, start, stop)])

        start, stop, got = self.run(stream())
        assert got == self.origin.data[path][start:stop]

    @rule(path=paths)
    def fill(self, path):
        async def fill():
            await self.cached.fill(await self.cached.head(path))

        self.run(fill())
        if self.quota is None:
            assert self.cached.state(path).complete

    @rule(path=paths, size=st.integers(0, 4 * PAGE), seed=st.integers(0, 2**30))
    def publish(self, path, size, seed):
        head = self.run(self.cached.head(path))
        self.old[path] = head, self.origin.data[path]
        self.origin.publish(path, random.Random(seed).randbytes(size))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def read_an_old_version(self, data):
        path = data.draw(st.sampled_from(sorted(self.old)))
        head, published = self.old[path]

        async def read():
            extents = await all_extents(self.cached, head)
            return b"".join(await self.cached.read(head, extents))

        try:
            assert self.run(read()) == published
        except Changed as error:
            assert error.wanted_etag == head.etag

    @rule(path=paths)
    def drop(self, path):
        self.run(self.cached.drop(path))
        assert self.cached.state(path).cached_bytes == 0

    @rule()
    def reopen(self):
        before = self.cached.stats.cached_bytes
        self.run(self.cached.close())
        self.open()
        assert self.cached.stats.cached_bytes == before

    @rule(where=st.floats(0, 1), which=st.integers(0, 5))
    def corrupt(self, where, which):
        """Flip a byte of a mirror while the cache is closed."""
        self.run(self.cached.close())
        files = sorted((self.directory / "mirrors").glob("*.data"))
        if files and (size := (file := files[which % len(files)]).stat().st_size):
            with file.open("r+b") as mirror:
                offset = int(where * (size - 1))
                mirror.seek(offset)
                byte = mirror.read(1)[0]
                mirror.seek(offset)
                mirror.write(bytes([byte ^ 0x40]))
        self.open()

    @invariant()
    def the_store_is_what_it_says(self):
        if not hasattr(self, "cached"):
            return
        store = self.cached._store
        versions = [version for path in PATHS for version in store.all_of(path)]
        assert sum(version.cached_bytes for version in versions) == self.cached.stats.cached_bytes
        assert len(versions) == self.cached.stats.versions
        if self.quota is not None:
            assert self.cached.stats.cached_bytes <= self.quota
        for version in versions:
            assert version.users == version.held == 0
            numbers = version.mirror.numbers()
            sizes = [min(PAGE, version.size - (n - 4) // 2 * PAGE) for n in numbers.tolist()]
            assert sum(sizes) == version.cached_bytes
            assert version.complete == (version.cached_bytes == version.size)

    def teardown(self):
        if hasattr(self, "cached"):
            self.run(self.cached.close())
        self.loop.close()
        self.executor.shutdown()
        shutil.rmtree(self.directory)


CacheMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCache = CacheMachine.TestCase
