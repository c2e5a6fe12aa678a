"""Whatever is written, moved, killed, cut off and restored: nobody goes backwards, nobody sees what never
was, and at rest everybody has what is in the directory.

Real processes, real files, a real network with links that can be cut. Two subscribers are read all the time,
by threads that check every answer. More: ``CATERVA2_TEST_EXAMPLES=200``; what was done is printed at the end
(``pytest -s``).
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import urllib3
from blake3 import blake3
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import caterva2
from caterva2.client.events import EventStream
from caterva2.errors import Caterva2Error
from caterva2.http.negotiation import MEDIA_TYPES
from caterva2.state import process_exists
from caterva2.testing.network import Link, Network
from caterva2.testing.processes import ForkedService
from caterva2.testing.waiting import wait_until

EXAMPLES = int(os.environ.get("CATERVA2_TEST_EXAMPLES", "4"))
STEPS = 15

SETTLE_S = 0.15
RESCAN_S = 2.0
AT_REST_S = 60.0
"""When the last fault is over, all is equal within this, in seconds, on a machine that does much else."""

FALSELY_FRESH_S = 15.0
"""What was replaced this long ago is not called fresh, in seconds: a heartbeat's life, on a busy machine."""

ROW = 20_000
"""Elements of a chunk; all are the serial number of the change that wrote it."""

SMALL, LARGE, TEXT, MOVED, MOVED_TEXT = "a.b2nd", "big.b2nd", "notes.txt", "dir/b.b2nd", "dir/deep/notes.txt"
PATHS = [SMALL, LARGE, TEXT, MOVED, MOVED_TEXT, "moved/b.b2nd", "moved/deep/notes.txt"]
ARRAYS = [path for path in PATHS if path.endswith(".b2nd")]
SUBSCRIBERS = ["one", "two"]
SERVICES = ["broker", "publisher", *SUBSCRIBERS]

paths = st.sampled_from(PATHS)
done: Counter[str] = Counter()
took: list[float] = []


# -- what was published ------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return blake3(data).hexdigest()


Key = tuple[Any, ...]


@dataclass(frozen=True)
class Content:
    """What a file is at one time; rows are the serial numbers of its chunks, None if it is no array now."""

    data: bytes
    rows: tuple[int, ...] | None = None

    def known_by(self) -> Iterator[Key]:
        """Yield what answers can be known by."""
        yield "bytes", digest(self.data)
        if self.rows is not None:
            yield "rows", self.rows
            yield from (("row", number, serial) for number, serial in enumerate(self.rows))


class Truth:
    """What each file was, in order, noted before it is written. Read by many threads."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Key, list[int]]] = {path: defaultdict(list) for path in PATHS}
        self.now: dict[str, Content] = {}
        self.count = dict.fromkeys(PATHS, 0)
        self.since: dict[str, float] = dict.fromkeys(PATHS, float("inf"))
        """The version that was the first since the file is there; infinite while it is not."""
        self.written_at = dict.fromkeys(PATHS, 0.0)
        self.broken: set[str] = set()
        self.etags: dict[tuple[str, str], str] = {}

    def add(self, path: str, content: Content) -> None:
        number = self.count[path]
        for key in content.known_by():
            self._numbers[path][key].append(number)
        if content.rows is None and path in ARRAYS:
            self.broken.add(path)
        self.count[path] = number + 1
        if path not in self.now:
            self.since[path] = number
        self.now[path] = content
        self.written_at[path] = time.monotonic()

    def remove(self, path: str) -> Content:
        self.since[path] = float("inf")
        self.written_at[path] = time.monotonic()
        return self.now.pop(path)

    def may_blink(self) -> None:
        """Note that a publisher that forgot versions may withdraw them until it has taken them anew."""
        self.since.update({path: self.count[path] for path in self.now})

    def numbers(self, path: str, key: Key) -> list[int]:
        return list(self._numbers[path].get(key, ()))


class Writer:
    """Makes contents with Blosc2, out of sight."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "staged.b2nd"
        self._serial = 0

    def serial(self) -> int:
        self._serial += 1
        return self._serial

    def new(self, path: str) -> Content:
        serial = self.serial()
        if path not in ARRAYS:
            return Content(b"%d\n" % serial * 2000)
        rows = 9 if path == LARGE else 3  # more than a publisher hashes whole, or less
        cparams = {"clevel": 0 if path == LARGE else 1, "nthreads": 1}
        values = np.full(rows * ROW, serial)
        blosc2.asarray(
            values, chunks=(ROW,), blocks=(ROW // 4,), cparams=cparams, urlpath=str(self._file), mode="w"
        )
        return Content(self._file.read_bytes(), (serial,) * rows)

    def changed(self, old: Content, how: str, where: int) -> Content:
        """Return a content with a chunk more, one changed, or other metadata; as Blosc2 does it in place."""
        assert old.rows is not None
        serial, rows = self.serial(), list(old.rows)
        self._file.write_bytes(old.data)
        array = blosc2.open(str(self._file), mode="a")
        match how:
            case "append":
                array.resize(((len(rows) + 1) * ROW,))
                array[len(rows) * ROW :] = serial
                rows.append(serial)
            case "chunk":
                where %= len(rows)
                array[where * ROW : (where + 1) * ROW] = serial
                rows[where] = serial
            case "vlmeta":
                array.schunk.vlmeta["serial"] = serial
        del array
        return Content(self._file.read_bytes(), tuple(rows))


# -- who reads ---------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What one subscriber was seen to have, by dataset; kept as long as it keeps its state."""

    generations: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PATHS, -1))


class Watch:
    """Reads a subscriber all the time, and listens to its events; notes what is wrong.

    Attributes
    ----------
    faults : list of str
    """

    def __init__(self, name: str, url: str, truth: Truth) -> None:
        self.name, self.url, self.truth = name, url, truth
        self.faults: list[str] = []
        self.seen = Seen()
        self._random = random.Random(name)
        self._stop = threading.Event()
        self._stream: EventStream | None = None
        self._http = urllib3.PoolManager(maxsize=4, retries=False, timeout=urllib3.Timeout(30.0))
        self._threads = [threading.Thread(target=self._read_on), threading.Thread(target=self._listen_on)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        while any(thread.is_alive() for thread in self._threads):
            if (stream := self._stream) is not None:
                stream.close()
            for thread in self._threads:
                thread.join(0.05)
        self._http.clear()

    def fault(self, path: str, what: str) -> None:
        self.faults.append(f"{self.name}, {path}: {what}, at {datetime.now(UTC).isoformat()}")

    # -- events ----------------------------------------------------------------------------------

    def _listen_on(self) -> None:
        while not self._stop.is_set():
            with (
                suppress(Caterva2Error, OSError),
                caterva2.connect(self.url) as client,
                client.events("foo") as self._stream,
            ):
                self._listen(self._stream)
            self._stop.wait(0.05)

    def _listen(self, stream: EventStream) -> None:
        for event in stream:
            if event.generation is not None:
                path, told = event.path.removeprefix("foo/"), self.seen.told
                if event.generation < told[path]:
                    self.fault(path, f"told of generation {event.generation} after {told[path]}")
                told[path] = max(told[path], event.generation)
                done["events"] += 1

    # -- answers ---------------------------------------------------------------------------------

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        accept = {"Accept": MEDIA_TYPES["raw"]} if path.startswith("/api/fetch/") else None
        return self._http.request("GET", self.url + path, headers=accept)

    def _read_on(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except (urllib3.exceptions.HTTPError, OSError):
                done["not reached"] += 1
                self._stop.wait(0.03)
            except Exception as error:
                self.fault("any", f"an answer that cannot be understood: {error!r}")
            self._stop.wait(0.002)

    def _read(self) -> None:
        seen = self.seen  # another one, if the subscriber begins anew meanwhile
        path, how = self._random.choice(PATHS), self._random.randrange(6)
        count, began = self.truth.count[path], time.monotonic()
        if how == 0:
            self._catalogue(seen)
            return
        if how == 1:
            self._check(seen, path, self.get(f"/api/info/foo/{path}"), None, began)
        elif how < 4 or path not in ARRAYS:
            answer = self.get(f"/data/foo/{path}")
            key = ("bytes", digest(answer.data))
            self._check(seen, path, answer, key, began)
        else:
            row = self._random.randrange(10) if how == 4 else None
            part = "" if row is None else f"{row * ROW}:{(row + 1) * ROW}"
            answer = self.get(f"/api/fetch/foo/{path}?slice_={part}")
            self._check_slice(seen, path, answer, row, began)
        done["answers"] += 1
        done["versions passed over"] += self.truth.count[path] - count

    def _catalogue(self, seen: Seen) -> None:
        answer = self.get("/api/catalogue/foo")
        for row in json.loads(answer.data)["rows"] if answer.status == 200 else ():
            self._check_generation(seen, row["path"].removeprefix("foo/"), row["generation"])

    def _check_slice(
        self, seen: Seen, path: str, answer: urllib3.BaseHTTPResponse, row: int | None, began: float
    ) -> None:
        key: Key | None = None
        if answer.status == 200 and "X-Caterva2-Dtype" in answer.headers:
            values = np.frombuffer(answer.data, np.int64)
            rows = values[: len(values) // ROW * ROW].reshape(-1, ROW)
            if len(values) % ROW or (rows != rows[:, :1]).any():
                self.fault(path, f"a slice of {len(values)} elements that mixes versions")
            elif row is None:
                key = ("rows", tuple(rows[:, 0].tolist()))
            elif len(rows):
                key = ("row", row, int(rows[0, 0]))
        elif row is None:  # it cannot be read as an array
            key = ("bytes", digest(answer.data))
        self._check(seen, path, answer, key, began)

    def _check(
        self, seen: Seen, path: str, answer: urllib3.BaseHTTPResponse, key: Key | None, began: float
    ) -> None:
        done[f"status {answer.status}"] += 1
        if answer.status == 404:
            if seen.numbers[path] >= self.truth.since[path] and self.truth.since[path] != float("inf"):
                self.fault(path, "not found, though it was seen and never deleted")
            return
        if answer.status in (412, 503) or (answer.status == 422 and path in self.truth.broken):
            return
        if answer.status != 200:
            self.fault(path, f"status {answer.status}: {answer.data[:300]!r}")
            return
        self._check_generation(seen, path, int(answer.headers["X-Caterva2-Generation"]))
        if key is not None:
            self._check_content(seen, path, answer, key, began)

    def _check_generation(self, seen: Seen, path: str, generation: int) -> None:
        if generation < seen.generations[path]:
            self.fault(path, f"generation {generation} after {seen.generations[path]}")
        seen.generations[path] = max(seen.generations[path], generation)

    def _check_content(
        self, seen: Seen, path: str, answer: urllib3.BaseHTTPResponse, key: Key, began: float
    ) -> None:
        numbers, last = self.truth.numbers(path, key), seen.numbers[path]
        if not numbers:
            self.fault(path, f"what was never there: {key}")
            return
        if numbers[-1] < last:
            self.fault(path, f"version {numbers[-1]} after {last}")
        seen.numbers[path] = max(last, min((number for number in numbers if number >= last), default=last))
        etag = answer.headers["ETag"]
        if key[0] == "bytes" and self.truth.etags.setdefault((path, etag), key[1]) != key[1]:
            self.fault(path, f"other bytes of {etag}")
        stale = numbers[-1] < self.truth.count[path] - 1 or path not in self.truth.now
        quiet_s = began - self.truth.written_at[path]
        if answer.headers["X-Caterva2-Freshness"] == "fresh" and stale and quiet_s > FALSELY_FRESH_S:
            self.fault(path, f"version {numbers[-1]} is called fresh, replaced {quiet_s:.0f} s ago")


# -- the machine -------------------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that nobody gets by chance: below those that the system gives to who asks for any."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class ChangesMachine(RuleBasedStateMachine):
    """A broker, a publisher and two subscribers; links between them; what is in the directory."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.scratch = Path(tempfile.mkdtemp(prefix="changes-"))
        self.stack.callback(shutil.rmtree, self.scratch, ignore_errors=True)
        self.root = self.scratch / "root"
        self.root.mkdir()
        self.truth = Truth()
        self.writer = Writer(self.scratch)
        self.running: dict[str, ForkedService] = {}
        self.stack.callback(self.kill_all)
        self.saved: set[str] = set()
        self.log: list[str] = []
        self.began = time.monotonic()

    def note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self.began:7.2f} {what}")
        done[what.split(" ", maxsplit=1)[0]] += 1

    @initialize()
    def start(self) -> None:
        for path in (SMALL, LARGE, TEXT, MOVED, MOVED_TEXT):
            self.put(path, self.writer.new(path), by_rename=True, keep_mtime=False)
        self.network = self.stack.enter_context(Network())
        self.ports = {name: free_port() for name in SERVICES}
        self.data_link = self.network.link(self.ports["publisher"])
        self.bus_links: dict[str, list[Link]] = {name: self._bus_links() for name in SUBSCRIBERS}
        for name in SERVICES:
            self.start_service(name)
        urls = {name: f"http://127.0.0.1:{self.ports[name]}" for name in SUBSCRIBERS}
        self.watches = {name: Watch(name, url, self.truth) for name, url in urls.items()}
        for watch in self.watches.values():
            self.stack.callback(watch.close)

    def _bus_links(self) -> list[Link]:
        """Return links to the broker and to its bus: what it says of the bus is changed accordingly."""
        bus = self.network.link(1)

        def lead_through(piece: bytes) -> bytes:
            found = re.search(rb"nats://127\.0\.0\.1:(\d{5})", piece)
            if found is None:
                return piece
            bus.target = int(found[1])
            return piece.replace(found[1], b"%05d" % bus.port)

        return [self.network.link(self.ports["broker"], lead_through), bus]

    # -- services --------------------------------------------------------------------------------

    def start_service(self, name: str) -> None:
        match name:
            case "broker":
                command = ["broker"]
            case "publisher":
                command = [
                    "publisher",
                    "foo",
                    str(self.root),
                    "--url",
                    f"http://127.0.0.1:{self.data_link.port}",
                ]
                command += ["--broker", f"http://127.0.0.1:{self.ports['broker']}"]
                command += ["--settle-s", str(SETTLE_S), "--rescan-s", str(RESCAN_S)]
            case _:
                command = ["subscriber", "--broker", f"http://127.0.0.1:{self.bus_links[name][0].port}"]
        command += ["--listen", f"127.0.0.1:{self.ports[name]}", "--state", str(self.scratch / name)]
        command += ["--log-level", "debug"]
        log = self.scratch / f"{name}.log"
        self.running[name] = ForkedService(command, log, {"CATERVA2_CONFIG": os.devnull})
        self.running[name].wait_listening()

    def kill_service(self, name: str) -> None:
        service = self.running.pop(name, None)
        if service is not None:
            children = service.children()
            self.signal_bus(signal.SIGCONT, service)  # it ends with its broker, unless it is stopped
            service.kill()
            wait_until(lambda: not any(map(process_exists, children)))

    def kill_all(self) -> None:
        for name in list(self.running):
            self.kill_service(name)

    def signal_bus(self, number: signal.Signals, service: ForkedService | None = None) -> None:
        service = service or self.running.get("broker")
        if service is not None:
            for child in service.children():
                with suppress(ProcessLookupError):
                    os.kill(child, number)

    @rule(name=st.sampled_from(SERVICES))
    def kill(self, name: str) -> None:
        self.note(f"kill {name}")
        self.kill_service(name)

    @rule(name=st.sampled_from(SERVICES))
    def restart(self, name: str) -> None:
        self.note(f"restart {name}")
        self.kill_service(name)
        self.start_service(name)

    @rule(number=st.sampled_from([signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT]))
    def disturb_bus(self, number: signal.Signals) -> None:
        self.note(f"bus gets {number.name}")
        self.signal_bus(number)

    @rule(name=st.sampled_from(["broker", "publisher"]))
    def save(self, name: str) -> None:
        """Copy the state of a service that was killed."""
        self.note(f"save {name}")
        self.kill_service(name)
        shutil.rmtree(self.scratch / f"{name}.saved", ignore_errors=True)
        shutil.copytree(self.scratch / name, self.scratch / f"{name}.saved")
        self.saved.add(name)
        self.start_service(name)

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        self.restore_from(data.draw(st.sampled_from(sorted(self.saved))))

    def restore_from(self, name: str) -> None:
        self.note(f"restore {name}")
        self.replace_state(name, self.scratch / f"{name}.saved")

    @rule(name=st.sampled_from(["broker", "publisher"]))
    def wipe(self, name: str) -> None:
        self.note(f"wipe {name}")
        self.replace_state(name, None)

    def replace_state(self, name: str, saved: Path | None) -> None:
        self.kill_service(name)
        if name == "publisher":
            self.truth.may_blink()
        shutil.rmtree(self.scratch / name)
        if saved is not None:
            shutil.copytree(saved, self.scratch / name)
        self.start_service(name)

    @precondition(lambda self: len(self.log) > STEPS // 3)
    @rule()
    def join(self) -> None:
        """Let a subscriber with an empty state come in place of one."""
        self.note("join")
        self.kill_service("two")
        shutil.rmtree(self.scratch / "two")
        self.watches["two"].close()
        faults = self.watches["two"].faults
        self.watches["two"] = Watch("two", self.watches["two"].url, self.truth)
        self.watches["two"].faults += faults
        self.stack.callback(self.watches["two"].close)
        self.start_service("two")

    # -- the network -----------------------------------------------------------------------------

    @rule(which=st.sampled_from(["one", "two", "data"]), state=st.sampled_from(["cut", "hung", "open"]))
    def link(self, which: str, state: Any) -> None:
        self.note(f"link {which} {state}")
        for link in [self.data_link] if which == "data" else self.bus_links[which]:
            link.set_state(state)

    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 3.0, 7.0]))
    def pause(self, seconds: float) -> None:
        self.note(f"pause {seconds}")
        time.sleep(seconds)

    # -- the directory ---------------------------------------------------------------------------

    def put(self, path: str, content: Content, *, by_rename: bool, keep_mtime: bool) -> None:
        """Write a file. In place it is one write, before which it is cut where it becomes shorter."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        status = file.stat() if file.exists() else None
        if by_rename or status is None:
            staged = self.scratch / "staged"
            staged.write_bytes(content.data)
            if keep_mtime and status is not None:
                os.utime(staged, ns=(status.st_atime_ns, status.st_mtime_ns))
            self.truth.add(path, content)
            staged.rename(file)
            return
        if len(content.data) < status.st_size:
            self.cut(path, len(content.data))
        self.truth.add(path, content)
        with file.open("r+b", buffering=0) as opened:
            assert opened.write(content.data) == len(content.data)
        if keep_mtime:
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def cut(self, path: str, size: int) -> None:
        self.truth.add(path, Content(self.truth.now[path].data[:size]))
        os.truncate(self.root / path, size)

    @rule(path=paths, by_rename=st.booleans(), keep_mtime=st.booleans())
    def write(self, path: str, by_rename: bool, keep_mtime: bool) -> None:
        self.note(f"write {path} {by_rename=} {keep_mtime=}")
        self.put(path, self.writer.new(path), by_rename=by_rename, keep_mtime=keep_mtime)

    @rule(
        path=st.sampled_from(ARRAYS),
        how=st.sampled_from(["append", "chunk", "vlmeta"]),
        where=st.integers(0, 9),
        by_rename=st.booleans(),
        keep_mtime=st.booleans(),
    )
    def change(self, path: str, how: str, where: int, by_rename: bool, keep_mtime: bool) -> None:
        old = self.truth.now.get(path)
        if old is None or old.rows is None or len(old.rows) > 9:
            return
        self.note(f"change {path} {how} {by_rename=} {keep_mtime=}")
        new = self.writer.changed(old, how, where)
        self.put(path, new, by_rename=by_rename, keep_mtime=keep_mtime)

    @rule(path=paths, how=st.sampled_from(["utime", "chmod", "copy"]))
    def touch(self, path: str, how: str) -> None:
        """Change the status of a file, or all of it but its content."""
        if path not in self.truth.now:
            return
        self.note(f"touch {path} {how}")
        file = self.root / path
        match how:
            case "utime":
                os.utime(file)
            case "chmod":
                file.chmod(file.stat().st_mode ^ 0o020)
            case "copy":
                staged = self.scratch / "staged"
                shutil.copy(file, staged)
                staged.rename(file)

    @rule(path=paths, part=st.sampled_from([0.0, 0.5, 0.99]))
    def truncate(self, path: str, part: float) -> None:
        if path in self.truth.now:
            self.note(f"truncate {path} {part}")
            self.cut(path, int(part * len(self.truth.now[path].data)))

    @rule(path=paths)
    def delete(self, path: str) -> None:
        if path in self.truth.now and len(self.truth.now) > 1:
            self.note(f"delete {path}")
            self.truth.remove(path)
            (self.root / path).unlink()

    @rule(pair=st.tuples(st.sampled_from(ARRAYS), st.sampled_from(ARRAYS)))
    def move(self, pair: tuple[str, str]) -> None:
        old, new = pair
        if old in self.truth.now and old != new:
            self.note(f"move {old} {new}")
            (self.root / new).parent.mkdir(parents=True, exist_ok=True)
            self.truth.add(new, self.truth.remove(old))
            (self.root / old).rename(self.root / new)

    @rule()
    def move_directory(self) -> None:
        for old, new in (("dir", "moved"), ("moved", "dir")):
            if (self.root / old).exists() and not (self.root / new).exists():
                self.note(f"move directory {old} {new}")
                for path in [path for path in self.truth.now if path.startswith(f"{old}/")]:
                    self.truth.add(path.replace(old, new, 1), self.truth.remove(path))
                (self.root / old).rename(self.root / new)
                return

    @rule(seed=st.integers(0, 1 << 16), count=st.integers(3, 20))
    def storm(self, seed: int, count: int) -> None:
        """Do much of that, with pauses around the time after which a file has settled."""
        self.note(f"storm {count}")
        chance = random.Random(seed)
        for _ in range(count):
            self.change_something(chance)
            time.sleep(chance.choice([0, 0, 0.01, SETTLE_S, 2 * SETTLE_S]))

    def change_something(self, chance: random.Random) -> None:
        path, array = chance.choice(PATHS), chance.choice(ARRAYS)
        by_rename, keep_mtime = chance.random() < 0.5, chance.random() < 0.3
        kinds = ["write", "change", "change", "touch", "truncate", "delete", "move", "directory"]
        match chance.choice(kinds):
            case "write":
                self.write(path, by_rename, keep_mtime)
            case "change":
                how = chance.choice(["append", "chunk", "vlmeta"])
                self.change(array, how, chance.randrange(9), by_rename, keep_mtime)
            case "touch":
                self.touch(path, chance.choice(["utime", "chmod", "copy"]))
            case "truncate":
                self.truncate(path, chance.choice([0.0, 0.5, 0.99]))
            case "delete":
                self.delete(path)
            case "move":
                self.move((array, chance.choice(ARRAYS)))
            case "directory":
                self.move_directory()

    @rule(name=st.sampled_from(["broker", "publisher"]), seed=st.integers(0, 1 << 16))
    def turn_back(self, name: str, seed: int) -> None:
        """Let a service forget some changes that others have seen."""
        self.save(name)
        self.storm(seed, 6)
        self.pause(1.0)
        self.restore_from(name)

    # -- readers ---------------------------------------------------------------------------------

    @rule(name=st.sampled_from(SUBSCRIBERS), mode=st.sampled_from(["meta", "cached", "full"]))
    def follow(self, name: str, mode: str) -> None:
        self.note(f"follow {name} {mode}")
        self.ask(name, "POST", f"/api/follow/*?mode={mode}")

    @rule(name=st.sampled_from(SUBSCRIBERS))
    def drop(self, name: str) -> None:
        self.note(f"drop {name}")
        self.ask(name, "DELETE", "/api/cache/foo")

    def ask(self, name: str, method: str, path: str) -> None:
        with suppress(urllib3.exceptions.HTTPError):
            answer = urllib3.request(method, self.watches[name].url + path, retries=False, timeout=20)
            assert answer.status in (200, 404), answer.data

    # -- checking --------------------------------------------------------------------------------

    @invariant()
    def nothing_was_wrong(self) -> None:
        faults = [fault for watch in getattr(self, "watches", {}).values() for fault in watch.faults]
        self.fail_if(faults)

    @rule()
    def rest(self) -> None:
        """Mend all, and wait until everybody has what is in the directory."""
        self.note("rest")
        for link in [self.data_link, *self.bus_links["one"], *self.bus_links["two"]]:
            link.set_state("open")
        self.signal_bus(signal.SIGCONT)
        for name in SERVICES:
            if name not in self.running:
                self.start_service(name)
        began = time.monotonic()
        while differences := self.differences():
            self.fail_if(differences if time.monotonic() > began + AT_REST_S else [])
            time.sleep(0.05)
        took.append(time.monotonic() - began)
        self.note(f"rests after {took[-1]:.2f}")

    def differences(self) -> list[str]:
        """Return in what the services, and what they say, differ from the directory."""
        urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        try:
            found = [difference for name in SERVICES for difference in self.names_differ(name, urls[name])]
            return found or [d for name in SUBSCRIBERS for d in self.data_differ(name, urls[name])]
        except urllib3.exceptions.HTTPError as error:
            return [f"not reached: {error}"]

    def names_differ(self, name: str, url: str) -> Iterator[str]:
        answer = urllib3.request("GET", f"{url}/api/catalogue/foo", retries=False, timeout=20)
        names = [row["path"].removeprefix("foo/") for row in json.loads(answer.data).get("rows", ())]
        if names != sorted(self.truth.now):
            yield f"{name} has {names}, there are {sorted(self.truth.now)}"

    def data_differ(self, name: str, url: str) -> Iterator[str]:
        for path, content in self.truth.now.items():
            assert (self.root / path).read_bytes() == content.data
            answer = urllib3.request("GET", f"{url}/data/foo/{path}", retries=False, timeout=20)
            freshness = answer.headers.get("X-Caterva2-Freshness")
            if answer.status != 200 or answer.data != content.data or freshness != "fresh":
                yield f"{name}, {path}: status {answer.status}, {freshness}, {digest(answer.data)}"

    def fail_if(self, faults: list[str]) -> None:
        if faults:
            print(self.report(faults))  # at once: that it may not happen again is all that Hypothesis may say
        assert not faults

    def report(self, faults: list[str]) -> str:
        logs = []
        for name in SERVICES:
            file = self.scratch / f"{name}.log"
            lines = file.read_text(errors="replace").splitlines() if file.exists() else []
            logs += [f"-- {name}", *lines[-25:]]
        return "\n".join(["", *faults[:10], "-- what was done", *self.log, *logs])

    def teardown(self) -> None:
        try:
            if hasattr(self, "watches"):
                self.nothing_was_wrong()
                self.rest()
                self.nothing_was_wrong()
                done["examples"] += 1
        finally:
            self.stack.close()


@pytest.mark.timeout(180 + 60 * EXAMPLES)
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the bus to stop through /proc")
def test_changes() -> None:
    run_state_machine_as_test(
        ChangesMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # what fails by chance of time does not fail again
            suppress_health_check=list(HealthCheck),
        ),
    )
    took.sort()
    print(json.dumps(done), f"at rest after {took[len(took) // 2]:.1f} s, at most {took[-1]:.1f} s")
