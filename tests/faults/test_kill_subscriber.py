"""kill -9 of a subscriber at any moment, while readers read and files are replaced: no wrong byte, ever.

``CATERVA2_KILLS`` says how often; ``CATERVA2_SEED`` repeats a run's choices (not its timing).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pytest
import urllib3

from caterva2.frame.write import write_array
from caterva2.testing.waiting import wait_until

KILLS = int(os.environ.get("CATERVA2_KILLS", "30"))
SEED = int(os.environ.get("CATERVA2_SEED", random.randrange(1 << 32)))
READERS = 4
START_S = 1.2
"""About how long a subscriber starts: within it one of four is killed."""

QUOTA = "2MB"
"""Less than the 4.5 MB that are published: versions are evicted all the time."""

FOLLOWED = {"a0.b2nd": "full", "a1.b2nd": "cached", "a2.b2nd": "meta"}
"""These are refreshed at once, the others when they are read."""

PLAIN = "plain.bin"
SHAPE = (48, 80, 100)


@dataclass
class Answer:
    """What came, and what it should be a part of."""

    name: str
    etag: str
    generation: int
    part: tuple
    body: bytes


class Truth:
    """The bytes and values of every version that ever was, by etag."""

    def __init__(self) -> None:
        self._versions: dict[str, tuple[bytes, np.ndarray | None]] = {}
        self._lock = threading.Lock()
        self._unknown: list[Answer] = []
        self.wrong: list[str] = []
        self.compared: Counter[str] = Counter()

    def add(self, etag: str, stored: bytes, array: np.ndarray | None) -> None:
        self._versions[etag] = (stored, array)

    def judge(self, answer: Answer) -> None:
        """Compare an answer with its version; later, if that is not known yet."""
        if answer.etag not in self._versions:
            with self._lock:
                self._unknown.append(answer)
            return
        stored, array = self._versions[answer.etag]
        match answer.part:
            case "slice", key:
                expected = array[key].tobytes()
            case "bytes", first, last:
                expected = stored[first : last + 1]
            case _:
                expected = stored
        with self._lock:
            self.compared[answer.part[0]] += 1
            if answer.body != expected:
                self.wrong.append(f"{answer.name} {answer.etag} {answer.part}: {len(answer.body)} bytes")

    def judge_the_rest(self) -> None:
        waiting, self._unknown = self._unknown, []
        for answer in waiting:
            self.judge(answer)
        self.wrong += [f"{a.name} has no version {a.etag}" for a in self._unknown]


class Reader(threading.Thread):
    """Reads at random until it is stopped; a subscriber that is dead is asked again."""

    def __init__(self, number, hunt) -> None:
        super().__init__(name=f"reader {number}")
        self.chance = random.Random(SEED + number)
        self.hunt = hunt
        self.error: BaseException | None = None
        self.newest: dict[str, int] = {}

    def run(self) -> None:
        try:
            while not self.hunt.over.is_set():
                self.read()
        except BaseException as error:
            self.error = error
            self.hunt.over.set()

    def read(self) -> None:
        name, hunt = self.chance.choice(self.hunt.names), self.hunt
        target, headers, part = self.choose(name)
        try:
            answer = hunt.ask.get(f"{hunt.url}{target}", headers)
        except urllib3.exceptions.ReadTimeoutError:
            hunt.statuses["hung"] += 1
            return
        except urllib3.exceptions.HTTPError as error:
            hunt.statuses[type(error).__name__] += 1
            hunt.over.wait(0.05)  # nobody is there: let others run
            return
        hunt.statuses[str(answer.status)] += 1
        if answer.status in (200, 206):
            etag, generation = answer.headers["ETag"].strip('"'), int(answer.headers["X-Caterva2-Generation"])
            hunt.truth.judge(Answer(name, etag, generation, part, answer.data))
            if generation < self.newest.get(name, 0):
                hunt.truth.wrong.append(f"{name} went back to generation {generation} in {self.newest[name]}")
            self.newest[name] = generation
            with hunt.answered:
                hunt.answers += 1
                hunt.answered.notify_all()

    def choose(self, name):
        """Choose a slice, a range of bytes or a whole file: target, headers, part."""
        size = self.hunt.sizes[name]
        kind = self.chance.choice(["slice", "slice", "slice", "bytes", "whole"])
        if kind == "slice" and name != PLAIN:
            bounds = [sorted(self.chance.sample(range(length + 1), 2)) for length in SHAPE]
            selection = ", ".join(f"{start}:{stop}" for start, stop in bounds)
            target = f"/api/fetch/foo/{name}?slice_={quote(selection)}"
            return (
                target,
                {"Accept": "application/vnd.caterva2.raw"},
                ("slice", tuple(slice(*pair) for pair in bounds)),
            )
        if kind == "bytes":
            first, last = sorted(self.chance.sample(range(size), 2))
            return f"/data/foo/{name}", {"Range": f"bytes={first}-{last}"}, ("bytes", first, last)
        return f"/api/download/foo/{name}", {}, ("whole",)


class Writer(threading.Thread):
    """Replaces a dataset now and then, in part or wholly, and tells the truth about it."""

    def __init__(self, hunt, publisher_url, root, arrays) -> None:
        super().__init__(name="writer")
        self.arrays = dict(arrays)
        self.chance = random.Random(~SEED)
        self.hunt, self.publisher_url, self.root = hunt, publisher_url, root
        self.error: BaseException | None = None
        self.replaced = 0

    def run(self) -> None:
        try:
            while not self.hunt.over.wait(self.chance.uniform(0.2, 2)):
                self.replace(self.chance.choice(self.hunt.names))
                self.replaced += 1
        except BaseException as error:
            self.error = error
            self.hunt.over.set()

    def etag(self, name: str) -> str:
        return self.hunt.ask.json(f"{self.publisher_url}/api/info/foo/{name}")["etag"]

    def replace(self, name: str) -> None:
        old, file = self.etag(name), self.root / name
        noise = np.random.default_rng(self.chance.getrandbits(32))
        if name == PLAIN:
            array, temporary = None, self.root.parent / "next"
            size = self.hunt.sizes[name]
            kept = file.read_bytes()[: size // 2] if self.chance.random() < 0.5 else b""
            temporary.write_bytes(noise.bytes(size - len(kept)) + kept)
            temporary.replace(file)
        else:
            array = self.arrays[name].copy()
            changed = slice(0, 16) if self.chance.random() < 0.5 else slice(None)
            array[changed] = noise.integers(0, 1 << 14, array[changed].shape, np.uint16)
            self.arrays[name] = array
            write_array(file, array, chunks=(16, 40, 50), blocks=(4, 20, 50))
        wait_until(lambda: self.etag(name) != old)
        self.hunt.truth.add(self.etag(name), file.read_bytes(), array)


class Hunt:
    """What readers, writer and killer share."""

    def __init__(self, ask, root) -> None:
        self.ask = ask
        self.truth = Truth()
        self.over = threading.Event()
        self.names = sorted(file.name for file in root.iterdir())
        # sizes vary a little with each version: ranges stay below the smallest
        self.sizes = {n: (root / n).stat().st_size * (100 if n == PLAIN else 98) // 100 for n in self.names}
        self.answered = threading.Condition()
        self.answers = 0
        self.statuses: Counter[str] = Counter()
        self.url = ""

    def wait_for_answers(self, number: int) -> None:
        """Wait until so many more answers have come."""
        with self.answered:
            wanted = self.answers + number
            came = self.answered.wait_for(lambda: self.answers >= wanted or self.over.is_set(), 30)
        assert came, "no answers for 30 s"


@pytest.mark.timeout(60 + 6 * KILLS)
def test_no_kill_makes_a_wrong_byte(site, start, ask, root, arrays, capsys) -> None:
    print(f"CATERVA2_SEED={SEED}")
    chance = random.Random(SEED)
    publisher, subscriber = start(quota=QUOTA)
    hunt = Hunt(ask, root)
    hunt.url = subscriber.url("subscriber")
    writer = Writer(hunt, publisher.url("publisher"), root, arrays)
    for name, mode in FOLLOWED.items():
        site.run("follow", f"foo/{name}", *([f"--{mode}"] if mode != "cached" else []))
    for name in hunt.names:
        hunt.truth.add(writer.etag(name), (root / name).read_bytes(), arrays.get(name))
    threads = [writer, *(Reader(number, hunt) for number in range(READERS))]
    for thread in threads:
        thread.start()

    again = ["--listen", hunt.url.removeprefix("http://"), "--state", str(site.directory / "subscriber")]
    evicted = taken_over = 0
    try:
        for _ in range(KILLS):
            if chance.random() < 0.75:
                subscriber.url("subscriber")
                hunt.wait_for_answers(chance.randrange(1, 60))
            else:
                with pytest.raises(subprocess.TimeoutExpired):  # while it starts
                    subscriber.popen.wait(chance.uniform(0, START_S))
            if hunt.over.is_set():
                break
            with contextlib.suppress(urllib3.exceptions.HTTPError, AssertionError):  # it may not be there yet
                taken_over += ask.metric(hunt.url, "caterva2_subscriber_cache_taken_over_total")
            subscriber.kill()
            subscriber = site.start("subscriber", *again, "--quota", QUOTA)
        subscriber.url("subscriber")
        hunt.wait_for_answers(100)
        evicted = ask.metric(hunt.url, "caterva2_subscriber_cache_evicted_total")
        rejected = ask.metric(hunt.url, "caterva2_subscriber_cache_rejected_total")
    finally:
        hunt.over.set()
        for thread in threads:
            thread.join()
    for thread in threads:
        assert thread.error is None, repr(thread.error)
    hunt.truth.judge_the_rest()
    with capsys.disabled():
        print(
            f"\n{KILLS} kills, {writer.replaced} files replaced, {taken_over} extents taken over, "
            f"{hunt.truth.compared.total()} answers compared "
            f"{json.dumps(hunt.truth.compared)}, {len(hunt.truth.wrong)} wrong; {json.dumps(hunt.statuses)}"
        )
    assert not hunt.truth.wrong
    assert not hunt.statuses["hung"]
    assert not hunt.statuses["500"]
    assert rejected == 0  # what was marked as present had been written
    assert evicted > 0
    assert ask.metric(hunt.url, "caterva2_subscriber_cache_cached_bytes") <= 2_000_000
