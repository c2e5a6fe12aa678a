"""Three tiers on hosts of their own, each of which reaches its neighbours only: LANs behind gateways."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from tests.conftest import Process, Site

from caterva2.frame.write import write_array
from caterva2.testing.namespaces import Cable, Host, Namespaces, why_not
from caterva2.testing.waiting import wait_until

TOKEN = "correct-horse-battery"
ARRAY = np.random.default_rng(3).integers(0, 1 << 62, (60, 50, 100))
NAMES = ("wan", "gate1", "gate2", "gate3", "lan")


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    if reason := why_not():
        pytest.skip(reason)


class Hosts:
    """A publisher on the first host, tiers on those behind it, and a subscriber on the last one."""

    def __init__(self, site: Site, namespaces: Namespaces) -> None:
        self.site = site
        site.environment["CATERVA2_TOKEN"] = TOKEN
        self.root = site.directory / "root"
        self.root.mkdir()
        write_array(self.root / "x.b2nd", ARRAY, chunks=(20, 50, 50), blocks=(5, 25, 25))
        (self.root / "later.bin").write_bytes(bytes(range(256)) * 4000)
        self.hosts = [namespaces.host(name) for name in NAMES]
        pairs = zip(self.hosts, self.hosts[1:], strict=False)
        self.cables = [namespaces.connect(one, other) for one, other in pairs]
        self._start("wan", "broker", "broker", "--listen", "0.0.0.0:8000")
        self._start("wan", "publisher", "publisher", "foo", str(self.root), *self._at("wan", 0, 8001))
        for number in (1, 2, 3):
            self._start_gate(number)
        self._start("lan", "subscriber", "subscriber", "--broker", self._broker_above(4))
        wait_until(lambda: self.roots().get("freshness") == "fresh" and self.roots()["datasets"] == 2, 60)

    def _at(self, name: str, cable: int, port: int) -> list[str]:
        address = self.cables[cable].addresses[name]
        listen, own_broker = f"0.0.0.0:{port}", "http://127.0.0.1:8000"
        return ["--listen", listen, "--url", f"http://{address}:{port}", "--broker", own_broker]

    def _broker_above(self, number: int) -> str:
        """Return the broker of the host before one, by the cable between them."""
        return f"http://{self.cables[number - 1].addresses[NAMES[number - 1]]}:8000"

    def _start_gate(self, number: int) -> None:
        name = NAMES[number]
        own = f"http://{self.cables[number].addresses[name]}:8002"
        self._start(name, "broker", "broker", "--listen", "0.0.0.0:8000")
        above = ["--broker", self._broker_above(number), "--listen", "0.0.0.0:8002"]
        below = ["--republish-to", "http://127.0.0.1:8000", "--republish-url", own]
        self._start(name, "subscriber", "subscriber", *above, *below)

    def _start(self, name: str, service: str, *arguments: str) -> Process:
        state = ["--state", str(self.site.directory / f"{name}-{service}")]
        process = self[name].do(lambda: self.site.start(*arguments, *state))
        process.url(service)
        return process

    def __getitem__(self, name: str) -> Host:
        return self.hosts[NAMES.index(name)]

    # -- what the last host sees -----------------------------------------------------------------

    def get(self, target: str, **headers: str) -> urllib3.BaseHTTPResponse:
        """Ask the subscriber on the last host, from there."""

        def ask() -> urllib3.BaseHTTPResponse:
            with urllib3.PoolManager(retries=False, timeout=30) as http:
                url = f"http://127.0.0.1:8002{target}"
                return http.request("GET", url, headers={"Authorization": f"Bearer {TOKEN}", **headers})

        return self["lan"].do(ask)

    def roots(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.get("/api/roots").data).get("foo", {})
        return answer

    def array(self) -> np.ndarray:
        answer = self.get("/api/fetch/foo/x.b2nd", Accept="application/vnd.caterva2.raw")
        assert answer.status == 200, answer.data
        return np.frombuffer(answer.data, ARRAY.dtype).reshape(ARRAY.shape)

    def crossed(self) -> list[int]:
        """Return what came over each cable, towards the last host."""
        ends = zip(self.cables, self.hosts[1:], strict=True)
        return [cable.received_bytes(host) for cable, host in ends]

    @property
    def wan(self) -> Cable:
        """What the publisher is at the other end of."""
        return self.cables[0]


@pytest.fixture
def hosts(site: Site) -> Iterator[Hosts]:
    with Namespaces() as namespaces:
        try:
            yield Hosts(site, namespaces)
        finally:
            site.close()  # a namespace lives as long as a process in it


def size_of(root: Path) -> int:
    return (root / "x.b2nd").stat().st_size


def test_three_tiers_behind_each_other(hosts) -> None:
    first, last = hosts.wan.addresses["wan"], hosts.cables[-1].addresses["gate3"]
    reached = {name: hosts[name].reaches(first) for name in NAMES}
    assert reached == {"wan": True, "gate1": True, "gate2": False, "gate3": False, "lan": False}
    assert hosts["lan"].reaches(last)
    assert hosts.roots()["tiers"] == 3

    before = hosts.crossed()
    with ThreadPoolExecutor(4) as readers:
        for read in readers.map(lambda _: hosts.array(), range(4)):
            np.testing.assert_array_equal(read, ARRAY)
    shares = [(now - then) / size_of(hosts.root) for now, then in zip(hosts.crossed(), before, strict=True)]
    print(f"bytes over each cable / size of the file: {[round(share, 3) for share in shares]}")
    assert all(1 <= share < 1.1 for share in shares)

    hosts.wan.set_up(False)
    wait_until(lambda: hosts.roots()["freshness"] == "unverified", 30)
    began = time.monotonic()
    np.testing.assert_array_equal(hosts.array(), ARRAY)
    read_s = time.monotonic() - began
    ages = []
    for _ in range(2):
        answer = hosts.get("/api/fetch/foo/x.b2nd?slice_=3,4")
        assert (answer.status, answer.headers["X-Caterva2-Freshness"]) == (200, "unverified")
        ages.append(int(answer.headers["Age"]))
        time.sleep(1.5)
    assert 0 <= ages[0] < ages[1] < 120
    began = time.monotonic()
    assert hosts.get("/data/foo/later.bin").status == 503
    refused_s = time.monotonic() - began
    print(f"cut off: read in {read_s:.2f} s, refused in {refused_s:.2f} s, age {ages} s")
    assert refused_s < 10
    write_array(hosts.site.directory / "new", ARRAY + 1, chunks=(20, 50, 50), blocks=(5, 25, 25))
    (hosts.site.directory / "new").rename(hosts.root / "x.b2nd")

    hosts.wan.set_up(True)
    began = time.monotonic()
    wait_until(lambda: hosts.roots()["freshness"] == "fresh", 60)
    wait_until(lambda: np.array_equal(hosts.array(), ARRAY + 1), 30)
    print(f"mended: current after {time.monotonic() - began:.1f} s")
    assert len(hosts.get("/data/foo/later.bin").data) == 256 * 4000
