"""One version per answer, and never backwards, while writers rewrite arrays all the time.

The elements of a version are one number more than in the version before: an answer of which the elements do
not agree on the number is torn. One array changes by half, and is followed: the other half is taken over.

``CATERVA2_TEST_SECONDS`` says how long; ``CATERVA2_SEED`` repeats a run's choices (not its timing).
"""

from __future__ import annotations

import json
import os
import random
import runpy
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import blosc2
import numpy as np
import pytest
import urllib3

import caterva2
from caterva2.errors import Changed, Unavailable
from caterva2.testing.waiting import wait_until

SCRIPT = Path(__file__).with_name("rewrite_me.py")
REWRITER = runpy.run_path(str(SCRIPT))
SHAPE, elements = REWRITER["SHAPE"], REWRITER["elements"]
SECONDS = float(os.environ.get("CATERVA2_TEST_SECONDS", "15"))
SEED = int(os.environ.get("CATERVA2_SEED", random.randrange(1 << 32)))
READERS = 10
SETTLE_S = 0.5
RAW = "application/vnd.caterva2.raw"
WRITERS = {
    f"{way} {kind}.b2nd": (way, kind, pause_s)
    for way, kind, pause_s in (
        ("rename", "plain", 1.5),
        ("rename", "noise", 2.0),
        ("in-place", "plain", 2.0),
        ("in-place", "noise", 2.5),
        ("rename", "half", 2.0),
    )
}
FOLLOWED = "foo/*half*"
BASES = {kind: elements(kind, 0) for kind in ("plain", "noise", "half")}
MOVED = {kind: elements(kind, 1) != BASES[kind] for kind in BASES}
KINDS = ["element", "slice", "slice", "whole", "frame", "download", "ranges", "client", "pinned"]


class Writer:
    """A process that rewrites a file of its own."""

    def __init__(self, file: Path) -> None:
        arguments = [sys.executable, str(SCRIPT), str(file), *map(str, WRITERS[file.name])]
        self.name = file.name
        self.popen = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.longest: dict[int, float] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            number, longest = line.split()
            self.longest[int(number)] = float(longest)

    def stop(self) -> int:
        """Let it end behind a complete version; return the number of that."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.close()
        assert self.popen.wait(timeout=20) == 0
        self._reader.join(timeout=5)
        self.popen.stdout.close()
        return max(self.longest)


class Trial:
    """What the readers saw, all together."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.urls = urls
        self.over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.torn: list[tuple[str, str, list[int]]] = []
        self.seen: dict[tuple[str, str], set[int]] = {(s, name): set() for s in urls for name in WRITERS}
        self.of_etag: dict[str, int] = {}
        self.took: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def judge(self, service: str, name: str, etag: str, values: np.ndarray, key: tuple) -> int | None:
        """Return the number that the elements of an answer agree on; None if none of them has it."""
        kind = WRITERS[name][1]
        more, moved = np.asarray(values - BASES[kind][key]), MOVED[kind][key]
        numbers = np.unique(more[moved]).tolist()
        with self._lock:
            self.counts[f"answers of {service}"] += 1
            if np.any(more[~moved]):
                self.wrong.append(f"{service}: {name} {etag} changed where it never does")
            if len(numbers) != 1:
                if numbers:
                    self.torn.append((service, name, numbers[:5]))
                return None
            number = int(numbers[0])
            self.seen[service, name].add(number)
            if self.of_etag.setdefault(etag, number) != number:
                self.wrong.append(f"{service}: {name} {etag} is {self.of_etag[etag]} and {number}")
        return number


class Reader(threading.Thread):
    """Reads in every way, from every service, and remembers the newest that it saw of each."""

    def __init__(self, number: int, trial: Trial, ask) -> None:
        super().__init__(name=f"reader {number}")
        self.chance = random.Random(SEED + number)
        self.trial, self.ask = trial, ask
        self.newest: dict[tuple[str, str], tuple[int, int]] = {}
        self.error: BaseException | None = None
        self.clients = {service: caterva2.connect(url) for service, url in trial.urls.items()}

    def run(self) -> None:
        try:
            while not self.trial.over.is_set():
                service, name = self.chance.choice(list(self.trial.seen))
                self.read(service, name, self.chance.choice(KINDS))
        except BaseException as error:
            self.error = error
            self.trial.over.set()
        finally:
            for client in self.clients.values():
                client.close()

    def read(self, service: str, name: str, kind: str) -> bool:
        """Read once; return whether there was an answer."""
        before = time.monotonic()
        try:
            found = getattr(self, f"read_{kind}")(service, name)
        except Changed as error:
            self.trial.count(f"412 {kind}")
            if kind == "pinned" and None in (error.wanted_etag, error.current_etag):
                self.trial.count("412 without both etags")
            return False
        except Unavailable as error:
            self.trial.count(f"503 {kind}")
            self.trial.count(f"503: {str(error)[:60]}")
            return False
        except urllib3.exceptions.ProtocolError:  # it was replaced while it was being sent
            self.trial.count(f"broken off {kind}")
            return False
        finally:
            self.trial.took[service, WRITERS[name][0]].append(time.monotonic() - before)
        etag, generation, values, key = found
        number = self.trial.judge(service, name, etag, values, key)
        if number is not None:
            now, newest = (number, generation), self.newest.get((service, name), (-1, -1))
            if now[0] < newest[0] or now[1] < newest[1]:
                self.trial.wrong.append(f"{service}: {name} went from {newest} to {now} ({kind})")
            self.newest[service, name] = now
        return True

    # -- ways to read: each returns etag, generation, elements, and which elements these are ----------

    def get(self, service: str, target: str, headers: dict[str, str]):
        answer = self.ask.get(f"{self.trial.urls[service]}{target}", headers)
        if answer.status == 412:
            raise Changed(target, None)
        if answer.status == 503:
            raise Unavailable(answer.data.decode())
        assert answer.status in (200, 206), (target, answer.status, answer.data[:500])
        return answer

    def fetch(self, service: str, name: str, key: tuple, accept: str = RAW):
        text = ", ".join(str(p) if isinstance(p, int) else f"{p.start}:{p.stop}" for p in key)
        target = f"/api/fetch/foo/{quote(name)}?slice_={quote(text)}"
        answer = self.get(service, target, {"Accept": accept})
        if accept == RAW:
            values = np.frombuffer(answer.data, np.uint32).reshape(
                json.loads(answer.headers["X-Caterva2-Shape"])
            )
        else:
            values = blosc2.ndarray_from_cframe(answer.data)[...]
        return *named(answer), values, key

    def read_element(self, service: str, name: str):
        return self.fetch(service, name, tuple(self.chance.randrange(length) for length in SHAPE))

    def read_slice(self, service: str, name: str):
        bounds = [sorted(self.chance.sample(range(length + 1), 2)) for length in SHAPE]
        return self.fetch(service, name, tuple(slice(*pair) for pair in bounds))

    def read_whole(self, service: str, name: str):
        return self.fetch(service, name, ())

    def read_frame(self, service: str, name: str):
        return self.fetch(service, name, (), "application/octet-stream")

    def read_download(self, service: str, name: str):
        answer = self.get(service, f"/api/download/foo/{quote(name)}", {})
        return *named(answer), blosc2.ndarray_from_cframe(answer.data)[...], ()

    def read_ranges(self, service: str, name: str):
        target = f"/data/foo/{quote(name)}"
        first = self.get(service, target, {"Range": "bytes=0-99999"})
        rest = (
            self.get(service, target, {"Range": "bytes=100000-", "If-Match": first.headers["ETag"]}).data
            if len(first.data) == 100_000
            else b""
        )
        return *named(first), blosc2.ndarray_from_cframe(first.data + rest)[...], ()

    def read_client(self, service: str, name: str):
        array = self.clients[service][f"foo/{name}"]
        return array.etag, array.generation, array[...], ()

    def read_pinned(self, service: str, name: str):
        array = self.clients[service][f"foo/{name}"]
        rows = [array[n : n + 12] for n in range(0, SHAPE[0], 12)]
        return array.etag, array.generation, np.concatenate(rows), ()


def named(answer) -> tuple[str, int]:
    return answer.headers["ETag"].strip('"'), int(answer.headers["X-Caterva2-Generation"])


@pytest.mark.timeout(180 + SECONDS)
def test_every_answer_is_of_one_version(site, in_tiers, ask, tmp_path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with ExitStack() as stack:
        writers = [Writer(root / name) for name in WRITERS]
        for writer in writers:
            stack.callback(writer.popen.kill)
        wait_until(lambda: all(writer.longest for writer in writers))
        trial = Trial(stack.enter_context(in_tiers(root)))
        wait_until(lambda: all(knows_all(ask, url) for url in trial.urls.values()))
        for service in ("subscriber", "second tier"):
            site.run("follow", FOLLOWED, "--full", "--subscriber", trial.urls[service])

        readers = [Reader(number, trial, ask) for number in range(READERS)]
        for reader in readers:
            reader.start()
        trial.over.wait(SECONDS)
        wait_until(lambda: trial.over.is_set() or min(map(len, trial.seen.values())) > 2, 60)
        last = {writer.name: writer.stop() for writer in writers}
        trial.over.set()
        for reader in readers:
            reader.join(timeout=30)
        report(trial, writers)
        for reader in readers:
            if reader.error is not None:
                raise reader.error
        assert not any(reader.is_alive() for reader in readers)
        assert trial.wrong == []
        assert [torn for torn in trial.torn if not excused(torn, writers)] == []
        # and when nothing is written any more, everybody comes to the last one
        reader = readers[0]
        for service, name in trial.seen:
            wait_until(
                lambda s=service, n=name: reader.read(s, n, "whole") and reader.newest[s, n][0] == last[n]
            )
        assert trial.wrong == []
        for service in ("subscriber", "second tier"):
            taken_over = ask.metric(trial.urls[service], "caterva2_subscriber_cache_taken_over_total")
            print(f"  {service}: {taken_over} extents taken over from earlier versions")
            assert taken_over > 0


def knows_all(ask, url: str) -> bool:
    answer = ask.get(f"{url}/api/list/foo")
    return answer.status == 200 and set(answer.json()) == set(WRITERS)


def excused(torn: tuple[str, str, list[int]], writers: list[Writer]) -> bool:
    """Whether a writer itself stood still within a version, for longer than the publisher waits for more."""
    _, name, numbers = torn
    longest = next(writer.longest for writer in writers if writer.name == name)
    return numbers == [numbers[-1] - 1, numbers[-1]] and longest.get(numbers[-1], 0.0) > 0.8 * SETTLE_S


def report(trial: Trial, writers: list[Writer]) -> None:
    """Print what happened; pytest shows it with -s, or of a failure."""
    print(f"\nseed {SEED}, {SECONDS:.0f} s, {READERS} readers")
    for what, number in sorted(trial.counts.items()):
        print(f"  {what}: {number}")
    for (service, way), took in sorted(trial.took.items()):
        print(f"  {service}, {way}: median {statistics.median(took):.3f} s, longest {max(took):.3f} s")
    for writer in writers:
        seen = ", ".join(f"{len(trial.seen[service, writer.name])} by {service}" for service in trial.urls)
        pause = max(writer.longest.values())
        print(
            f"  {writer.name}: {len(writer.longest)} versions, pause within one {pause:.3f} s; seen: {seen}"
        )
    print(
        f"  torn: {len(trial.torn)}, of these by the writer: {sum(excused(t, writers) for t in trial.torn)}"
    )
    print(f"  wrong: {len(trial.wrong)}")
