"""Whatever happens in whatever order: the answer is what is published, and the store is what it says.

More examples: ``CATERVA2_TEST_EXAMPLES=500``. What was done is printed at the end; ``pytest -s`` shows it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from caterva2.cache.cached import CachedSource
from caterva2.cache.eviction import FOLLOWED, ORDINARY, PINNED
from caterva2.errors import Changed, Unavailable
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.path import DatasetPath
from caterva2.model.selection import select
from caterva2.source.slices import Reader
from caterva2.testing.contracts import all_extents
from caterva2.testing.origin import MemoryOrigin

EXAMPLES = int(os.environ.get("CATERVA2_TEST_EXAMPLES", "40"))
STEPS = 25
SETTLED_S = 20.0

FILES = [DatasetPath("foo", name) for name in ("a", "b")]
ARRAYS = [DatasetPath("foo", name) for name in ("x.b2nd", "dir/y.b2nd")]
PATHS = FILES + ARRAYS
paths = st.sampled_from(PATHS)

done: Counter[str] = Counter()


# -- what is published -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """What a dataset is at one time."""

    head: Head
    data: bytes
    values: np.ndarray | None
    extents: dict[int, Extent]

    def part(self, extent: Extent) -> bytes:
        return self.data[extent.offset : extent.stop]


@functools.cache
def arrays() -> list[tuple[np.ndarray, bytes]]:
    """Arrays and their files: one, with a chunk changed, with one appended, both, another shape.

    Two of the chunks of the first have 16 blocks of 20 kB that do not compress, one is all zeros, one is
    stored whole. What was changed in place leaves dead bytes in the file.
    """
    chance = np.random.default_rng(7)
    values = np.zeros((800, 400), np.int32)
    values[:400] = chance.integers(0, 1 << 31, (400, 400))
    values[600:] = np.arange(200 * 400).reshape(200, 400)
    noise = chance.integers(0, 1 << 31, (200, 400))
    found = []
    with tempfile.TemporaryDirectory() as directory:
        file = f"{directory}/array.b2nd"
        for change, append in [(False, False), (True, False), (False, True), (True, True)]:
            layout = {"chunks": (200, 400), "blocks": (25, 200), "cparams": {"nthreads": 1}}
            array = blosc2.asarray(values, urlpath=file, mode="w", **layout)
            if append:
                array.resize((1000, 400))
                array[800:] = noise
            if change:
                array[200:400] = noise[::-1]
            found.append((array[:], Path(file).read_bytes()))
    other = chance.random((130, 90))
    return [*found, (other, blosc2.asarray(other, chunks=(40, 90), blocks=(10, 45)).to_cframe())]


# -- the disk ----------------------------------------------------------------------------------------


class Worker(ThreadPoolExecutor):
    """Does one thing after the other; can copy what is on disk between two of them, as a crash leaves it."""

    def __init__(self) -> None:
        super().__init__(1)
        self._lock = threading.Lock()
        self._countdown = 0
        self._copy: Callable[[], None] | None = None

    def copy_before(self, number: int, copy: Callable[[], None]) -> None:
        self._countdown, self._copy = number, copy

    def copy_now(self) -> None:
        """Copy, unless it was done already."""
        with self._lock:
            copy, self._copy = self._copy, None
            if copy is not None:
                copy()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            self._countdown -= 1
            if self._countdown <= 0:
                self.copy_now()
            return work(*args, **kwargs)

        return super().submit(run)


def flip(file: Path, offset: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ 0x40]))


def damage(kind: str, data: Path, presence: Path, seed: int) -> None:
    match kind:
        case "data cut":
            os.truncate(data, data.stat().st_size // 2)
        case "map cut":
            os.truncate(presence, presence.stat().st_size // 2)
        case "map junk":
            presence.write_bytes(random.Random(seed).randbytes(presence.stat().st_size))
        case "map of ones":
            presence.write_bytes(b"\1" * presence.stat().st_size)
        case "map of zeros":
            presence.write_bytes(bytes(presence.stat().st_size))
        case "data gone":
            data.unlink()
        case "map gone":
            presence.unlink()
        case "both gone":
            data.unlink()
            presence.unlink()


DAMAGES = ["data cut", "map cut", "map junk", "map of ones", "map of zeros", "data gone", "map gone"]
DAMAGES += ["both gone"]


# -- the machine -------------------------------------------------------------------------------------


class CacheMachine(RuleBasedStateMachine):
    """A cache, its origin, and what each dataset is."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.scratch = Path(tempfile.mkdtemp())
        self.directory = self.scratch / "0"
        self.worker = Worker()
        self.origin = MemoryOrigin()
        self.down = False
        self.followed: set[DatasetPath] = set()
        self.pinned: set[DatasetPath] = set()
        self.now: dict[DatasetPath, Version] = {}
        self.versions: dict[str, Version] = {}  # by etag, all there ever were
        self.old: dict[DatasetPath, Version] = {}
        self.doubted: set[str] = set()
        """Versions that may have wrong bytes on disk, which were not read since."""
        self.miscounted: set[str] = set()
        """Versions whose presence map was damaged: what is counted is wrong until it is checked."""
        self.corrected: set[str] = set()
        """Versions of which something was found to be wrong, which the index may not know yet."""
        self.over = False
        """More was found to be here than the quota allows."""
        self.begin()

    def begin(self, *active: DatasetPath) -> None:
        """Note which datasets a step touches; the others lose bytes to eviction only."""
        self.active = set(active)
        self.ranks = {path: self.rank(path) for path in PATHS}

    @initialize(quota=st.sampled_from([None, 6 * PAGE, 4 * PAGE, 2 * PAGE]))
    def start(self, quota: int | None) -> None:
        self.quota = quota
        for path in FILES:
            self.publish(path, random.Random(path.name).randbytes(3 * PAGE + 5), None)
        for path in ARRAYS:
            values, data = arrays()[0]
            self.publish(path, data, values)
        self.open()
        self.kept = self.everything_present()

    def run(self, work: Awaitable[Any]) -> Any:
        async def settled() -> Any:
            try:
                return await work
            finally:
                while others := asyncio.all_tasks() - {asyncio.current_task()}:
                    _, late = await asyncio.wait(others, timeout=SETTLED_S)
                    assert not late, f"still running: {late}"

        return self.loop.run_until_complete(settled())

    def origin_of(self, path: DatasetPath) -> MemoryOrigin:
        if self.down:
            raise Unavailable(f"whoever has {path} is gone")
        return self.origin

    def rank(self, path: DatasetPath) -> int:
        if path in self.pinned:
            return PINNED
        return FOLLOWED if path in self.followed else ORDINARY

    def open(self) -> None:
        self.cached = CachedSource(
            self.directory,
            current=self.origin.entry,
            origin=self.origin_of,
            quota_bytes=self.quota,
            executor=self.worker,
            rank=self.rank,
        )
        self.run(self.cached.open())
        self.reader = Reader(self.cached, self.worker, limit_bytes=1 << 30)

    def close(self) -> None:
        done["taken over"] += self.cached.stats.taken_over
        self.run(self.cached.close())
        done["rejected"] += self.cached.stats.rejected
        done["evicted"] += self.cached.stats.evicted

    def publish(self, path: DatasetPath, data: bytes, values: np.ndarray | None) -> None:
        if path in self.now:
            self.old[path] = self.now[path]
        head = self.origin.publish(path, data)
        extents = {extent.number: extent for extent in self.run(all_extents(self.origin, head))}
        self.now[path] = self.versions[head.etag] = Version(head, data, values, extents)

    # -- what is here ----------------------------------------------------------------------------

    def stored(self, path: DatasetPath) -> Any:
        """Return what the store has of the current version of a dataset; None if nothing."""
        etag = self.now[path].head.etag
        return next((v for v in self.cached._store.all_of(path) if v.etag == etag and not v.doomed), None)

    def present(self, path: DatasetPath) -> set[int]:
        version = self.stored(path)
        return set() if version is None else set(version.mirror.numbers().tolist())

    def everything_present(self) -> dict[DatasetPath, tuple[str, set[int]]]:
        return {path: (self.now[path].head.etag, self.present(path)) for path in PATHS}

    def counted(self) -> list[tuple[str, str, int, bool]]:
        """Return what the cache says that it has, of versions of which that can be right."""
        return [
            (str(state.path), state.etag, state.cached_bytes, state.complete)
            for state in self.cached.states()
            if state.etag not in self.miscounted
        ]

    def ask(self, path: DatasetPath, work: Awaitable[Any], *, here: bool) -> Any:
        """Do some work, or return None if it fails because the origin is down and not all is here."""
        if self.now[path].head.etag in self.doubted | self.miscounted:
            here = False
        misses = self.cached.stats.misses
        try:
            got = self.run(work)
        except Unavailable:
            assert self.down and not here
            done["refused while the origin is down"] += 1
            return None
        assert not here or self.cached.stats.misses == misses
        return got

    # -- reading ---------------------------------------------------------------------------------

    @rule(path=paths, picks=st.lists(st.integers(0, 99), max_size=8))
    def read(self, path: DatasetPath, picks: list[int]) -> None:
        self.begin(path)
        now = self.now[path]
        extents = sorted(now.extents.values(), key=lambda extent: extent.offset)
        wanted = [extents[pick % len(extents)] for pick in picks] if extents else []

        async def read() -> list[bytes]:
            head = await self.cached.head(path)
            assert head.encode() == now.head.encode()
            if not self.down:
                await all_extents(self.cached, head)  # nobody reads without the manifest
            return await self.cached.read(head, wanted)

        here = self.stored(path) is not None and {extent.number for extent in wanted} <= self.present(path)
        got = self.ask(path, read(), here=here)
        if got is not None:
            assert got == [now.part(extent) for extent in wanted]
            done["bytes compared"] += sum(map(len, got))

    @rule(path=st.sampled_from(ARRAYS), where=st.tuples(*[st.floats(0, 1)] * 4), step=st.integers(1, 50))
    def slice(self, path: DatasetPath, where: tuple[float, ...], step: int) -> None:
        self.begin(path)
        now = self.now[path]
        assert now.values is not None
        rows, columns = now.values.shape
        (top, bottom), (left, right) = sorted(where[:2]), sorted(where[2:])
        key = (
            slice(int(top * rows), int(bottom * rows) + 1, step),
            slice(int(left * columns), int(right * columns) + 1),
        )

        async def read() -> np.ndarray:
            head = await self.cached.head(path)
            return await self.reader.array(head, select(key, now.values.shape))

        got = self.ask(path, read(), here=self.is_complete(path))
        if got is not None:
            np.testing.assert_array_equal(got, now.values[key])
            done["bytes compared"] += got.nbytes

    @rule(path=paths, ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
    def stream(self, path: DatasetPath, ends: tuple[float, float]) -> None:
        self.begin(path)
        data = self.now[path].data
        start, stop = sorted(round(end * len(data)) for end in ends)

        async def read() -> bytes:
            head = await self.cached.head(path)
            return b"".join([piece async for piece in self.cached.stream(head, start, stop)])

        got = self.ask(path, read(), here=self.is_complete(path))
        if got is not None:
            assert got == data[start:stop]
            done["bytes compared"] += len(got)

    @rule(path=paths)
    def fill(self, path: DatasetPath) -> None:
        self.begin(path)

        async def fill() -> bool:
            await self.cached.fill(await self.cached.head(path))
            return True

        here = self.is_complete(path)
        filled = self.ask(path, fill(), here=here)
        if filled and self.quota is None and self.now[path].head.etag not in self.miscounted:
            assert self.cached.state(path).complete

    @rule(path=paths, full=st.booleans())
    def refresh(self, path: DatasetPath, full: bool) -> None:
        """Have of the current version what was here of earlier ones."""
        self.begin(path)
        refreshed = self.ask(path, self.cached.refresh(path, full=full), here=False)
        if refreshed and self.now[path].head.etag not in self.miscounted:
            done["refreshed"] += 1
            assert [state.etag for state in self.cached.states() if state.path == path] in (
                [],
                [self.now[path].head.etag],
            )
            assert not full or self.over or self.cached.state(path).complete

    def is_complete(self, path: DatasetPath) -> bool:
        return self.stored(path) is not None and self.cached.state(path).complete

    @rule(
        readers=st.lists(st.tuples(paths, st.integers(0, 3)), min_size=2, max_size=6),
        dropped=st.none() | paths,
        replaced=st.none() | st.sampled_from(FILES),
    )
    def rush(
        self,
        readers: list[tuple[DatasetPath, int]],
        dropped: DatasetPath | None,
        replaced: DatasetPath | None,
    ) -> None:
        """Many read at once, while a dataset may be dropped and another be replaced."""
        self.begin(*PATHS)

        async def read(path: DatasetPath, part: int) -> None:
            for _ in range(part):
                await asyncio.sleep(0)
            try:
                head = await self.cached.head(path)
                version = self.versions[head.etag]
                wanted = (await all_extents(self.cached, head))[part::4]
                assert await self.cached.read(head, wanted) == [version.part(extent) for extent in wanted]
            except Changed:
                assert path == replaced
            except Unavailable:
                assert self.down

        async def disturb() -> None:
            await asyncio.sleep(0)
            if dropped is not None:
                await self.cached.drop(dropped)
            if replaced is not None:
                head = self.origin.publish(replaced, data)
                assert head.etag not in self.versions
                self.versions[head.etag] = Version(head, data, None, {})

        data = random.Random(len(self.versions)).randbytes(2 * PAGE + 1)

        async def everybody() -> None:
            await asyncio.gather(*(read(path, part) for path, part in readers), disturb())

        self.run(everybody())
        if replaced is not None:
            self.old[replaced] = self.now[replaced]
            head = self.run(self.origin.head(replaced))
            extents = {extent.number: extent for extent in self.run(all_extents(self.origin, head))}
            self.now[replaced] = self.versions[head.etag] = Version(head, data, None, extents)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def read_an_old_version(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.old)))
        self.begin(path)
        version = self.old[path]

        async def read() -> list[bytes]:
            return await self.cached.read(version.head, list(version.extents.values()))

        try:
            assert self.run(read()) == [version.part(extent) for extent in version.extents.values()]
        except Changed as error:
            assert error.wanted_etag == version.head.etag

    # -- what others do --------------------------------------------------------------------------

    @rule(path=st.sampled_from(FILES), pages=st.integers(0, 2), cut=st.integers(0, 2 * PAGE))
    def shift_file(self, path: DatasetPath, pages: int, cut: int) -> None:
        """Put something before what a file has, and cut its end: the same bytes, elsewhere."""
        self.begin(path)
        data = bytes([pages]) * (pages * PAGE) + self.now[path].data
        self.publish(path, data[: max(PAGE, min(len(data) - cut, 6 * PAGE))], None)

    @rule(path=st.sampled_from(FILES), size=st.none() | st.integers(0, 4 * PAGE), seed=st.integers(0, 2**30))
    def replace_file(self, path: DatasetPath, size: int | None, seed: int) -> None:
        self.begin(path)
        size = len(self.now[path].data) if size is None else size
        self.publish(path, random.Random(seed).randbytes(size), None)

    @rule(path=st.sampled_from(ARRAYS), which=st.integers(0, 4))
    def replace_array(self, path: DatasetPath, which: int) -> None:
        self.begin(path)
        values, data = arrays()[which]
        self.publish(path, data, values)

    @rule()
    def go_down_or_come_back(self) -> None:
        self.begin()
        self.down = not self.down

    @rule(path=paths)
    def follow_or_unfollow(self, path: DatasetPath) -> None:
        self.followed ^= {path}
        self.begin()

    @rule(path=paths)
    def pin_or_unpin(self, path: DatasetPath) -> None:
        self.pinned ^= {path}
        self.begin()

    @rule(path=paths)
    def drop(self, path: DatasetPath) -> None:
        self.begin(path)
        self.run(self.cached.drop(path))
        assert self.cached.state(path).cached_bytes == 0
        assert not self.cached._store.all_of(path)

    # -- the disk --------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.begin()
        before = self.counted()
        self.close()
        self.corrected.clear()
        self.open()
        assert self.counted() == before

    @rule()
    def crash(self) -> None:
        """Go on with a copy of what is on disk when nothing is under way: all of it was acknowledged."""
        self.begin()
        before = set(self.counted())
        self.crash_within(None)
        assert set(self.counted()) <= before
        assert len(self.counted()) == len([b for b in before if b[1] not in self.miscounted])

    @rule(path=paths, others=st.lists(paths, max_size=2), jobs=st.integers(1, 12))
    def crash_while_filling(self, path: DatasetPath, others: list[DatasetPath], jobs: int) -> None:
        self.begin(*PATHS)

        async def fill(path: DatasetPath) -> None:
            try:
                await self.cached.fill(await self.cached.head(path))
            except Unavailable:
                assert self.down

        async def fill_all() -> None:
            await asyncio.gather(*map(fill, {path, *others}))

        self.crash_within(fill_all(), jobs)

    def crash_within(self, work: Awaitable[None] | None, jobs: int = 1000) -> None:
        # What was found to be wrong is absent on disk before the index knows: see the end of this file
        self.miscounted |= self.doubted | self.corrected
        self.over = self.over or bool(self.miscounted)  # all is counted again
        after = self.scratch / str(int(self.directory.name) + 1)
        before = self.directory
        self.worker.copy_before(jobs, lambda: shutil.copytree(before, after))
        if work is not None:
            self.run(work)
        self.worker.copy_now()
        self.close()
        shutil.rmtree(before)
        self.directory = after
        self.open()

    @rule(where=st.floats(0, 1), which=st.integers(0, 9))
    def flip_while_closed(self, where: float, which: int) -> None:
        self.begin()
        mirrors = self.mirrors()
        self.close()
        if mirrors:
            etag, data, _ = mirrors[which % len(mirrors)]
            if size := data.stat().st_size:
                flip(data, int(where * (size - 1)))
                self.begin(*PATHS)
                self.doubted.add(etag)
        self.open()

    @rule(kind=st.sampled_from(DAMAGES), which=st.integers(0, 9), seed=st.integers(0, 2**30))
    def damage_while_closed(self, kind: str, which: int, seed: int) -> None:
        self.begin(*PATHS)
        mirrors = self.mirrors()
        self.close()
        if mirrors:
            etag, data, presence = mirrors[which % len(mirrors)]
            damage(kind, data, presence, seed)
            done[kind] += 1
            self.miscounted.add(etag)
            self.doubted.add(etag)
        self.open()

    def mirrors(self) -> list[tuple[str, Path, Path]]:
        """Return the versions that have files, with them."""
        versions = (version for path in PATHS for version in self.cached._store.all_of(path))
        files = [(v.etag, v.mirror.data_file, v.mirror.map_file) for v in versions]
        return [(etag, *both) for etag, *both in files if all(file.exists() for file in both)]

    # -- checking --------------------------------------------------------------------------------

    @rule(path=paths)
    def fsck(self, path: DatasetPath) -> None:
        self.begin(path)
        doubted = self.doubted | self.miscounted
        for found in self.run(self.cached.fsck(path)):
            assert found.sound or found.etag in doubted
            assert found.wrong == 0 or found.etag in self.doubted
            if not found.sound:
                self.corrected.add(found.etag)
            self.over = self.over or found.corrected_bytes > 0
            self.doubted.discard(found.etag)
            self.miscounted.discard(found.etag)
        for found in self.run(self.cached.fsck(path)):
            assert found.sound

    @rule(path=paths, pick=st.integers(0, 99), where=st.floats(0, 1), reopened=st.booleans())
    def flip_and_fsck(self, path: DatasetPath, pick: int, where: float, reopened: bool) -> None:
        """Flip a byte that is here while the cache is open: fsck finds it, and repairs it if it can."""
        self.begin(path)
        etag = self.now[path].head.etag
        present = sorted(self.present(path))
        if not present or etag in self.doubted | self.miscounted:
            return
        extent = self.now[path].extents[present[pick % len(present)]]
        offset = extent.offset + int(where * (extent.size - 1))
        if reopened:  # then it was not checked since the start
            self.close()
            self.open()
        flip(self.stored(path).mirror.data_file, offset)
        (found,) = [found for found in self.run(self.cached.fsck(path)) if found.etag == etag]
        done["bytes flipped and found"] += 1
        assert found.wrong == 1
        self.corrected.add(etag)
        assert found.repaired + found.dropped == 1
        assert found.repaired == (not self.down) or self.over  # then there may be no room for it
        assert found.corrected_bytes == found.unreadable == 0
        assert all(found.sound for found in self.run(self.cached.fsck(path)))
        assert (extent.number in self.present(path)) == bool(found.repaired)

    # -- after each step -------------------------------------------------------------------------

    @invariant()
    def the_store_is_what_it_says(self) -> None:
        if not hasattr(self, "kept"):
            return
        done["steps"] += 1
        stats = self.cached.stats
        stored = [version for path in PATHS for version in self.cached._store.all_of(path)]
        assert sum(version.cached_bytes for version in stored) == stats.cached_bytes
        assert len(stored) == stats.versions
        assert stats.disk_errors == 0
        self.over = self.over and stats.cached_bytes > self.quota if self.quota else False
        if self.quota is not None and not self.over:
            assert stats.cached_bytes <= self.quota
        for version in stored:
            assert version.users == version.held == 0
            if version.etag in self.miscounted:
                continue  # less than nothing may be counted
            extents = self.versions[version.etag].extents
            numbers = version.mirror.numbers().tolist()
            assert sum(extents[number].size for number in numbers) == version.cached_bytes
            assert version.complete == (len(numbers) == len(extents))
        known = {file for version in stored for file in (version.mirror.data_file, version.mirror.map_file)}
        assert set((self.directory / "mirrors").iterdir()) <= known
        self.eviction_went_by_rank(stored)

    def eviction_went_by_rank(self, stored: list[Any]) -> None:
        before, self.kept = self.kept, self.everything_present()
        suspects = {path for path in PATHS if path not in self.active}
        lost = {path for path in suspects if before[path][0] == self.kept[path][0]}
        lost = {path for path in lost if before[path][1] - self.kept[path][1]}
        done["datasets evicted from"] += len(lost)
        for path in lost:
            assert self.ranks[path] != PINNED
            if self.ranks[path] == FOLLOWED:
                done["followed evicted from"] += 1
                for other in suspects:
                    assert self.ranks[other] != ORDINARY or not self.kept[other][1]

    def teardown(self) -> None:
        if hasattr(self, "cached"):
            self.close()
        self.loop.close()
        self.worker.shutdown()
        shutil.rmtree(self.scratch)


@pytest.mark.timeout(120 + 5 * EXAMPLES)
def test_cache() -> None:
    run_state_machine_as_test(
        CacheMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(json.dumps(done))


@pytest.mark.parametrize("by_fsck", [False, True])
async def test_what_was_found_to_be_wrong_is_not_counted_after_a_crash(tmp_path: Path, by_fsck: bool) -> None:
    """A flipped byte is found while the origin is down; then the process is killed."""
    path = FILES[0]
    origin = MemoryOrigin({path: random.Random(1).randbytes(3 * PAGE)})
    down = False

    def origin_of(path: DatasetPath) -> MemoryOrigin:
        if down:
            raise Unavailable(str(path))
        return origin

    def opened(directory: Path) -> CachedSource:
        return CachedSource(
            directory, current=origin.entry, origin=origin_of, quota_bytes=None, executor=worker
        )

    with Worker() as worker:
        cached = opened(tmp_path / "before")
        await cached.open()
        head = await cached.head(path)
        await cached.fill(head)
        assert cached.state(path).complete
        await cached.close()
        (file,) = (tmp_path / "before" / "mirrors").glob("*.data")
        flip(file, PAGE)

        cached = opened(tmp_path / "before")
        await cached.open()
        down = True
        if by_fsck:
            await cached.fsck(path)
        else:
            with pytest.raises(Unavailable):
                await cached.read(head, await all_extents(origin, head))
        assert cached.state(path).cached_bytes == 2 * PAGE
        worker.copy_before(1000, lambda: shutil.copytree(tmp_path / "before", tmp_path / "after"))
        worker.copy_now()
        await cached.close()

        cached = opened(tmp_path / "after")
        await cached.open()
        state = cached.state(path)
        await cached.close()
    assert (state.cached_bytes, state.complete) == (2 * PAGE, False)
