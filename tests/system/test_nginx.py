"""nginx in front of a publisher, configured as the how-to says: a cache for subscribers and browsers."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import urllib3
from tests.conftest import Process, Site

from caterva2.frame.write import write_array
from caterva2.testing.waiting import wait_until

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CURL = shutil.which("curl")
HOW_TO = Path(__file__).parents[2] / "docs/how-to/nginx-cache.conf"
LIKE_DEBIAN = "access_log off;\nsendfile on;\ntcp_nopush on;"
TOKEN = "correct-horse-battery"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")

CUBE = np.random.default_rng(1).random((40, 50, 60))
NOISE = np.random.default_rng(2).bytes(3_000_000)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Behind:
    """A publisher behind nginx, a broker, and as many subscribers as wanted."""

    def __init__(self, site: Site, token: str | None = None) -> None:
        self.site, self.token = site, token
        self.http = urllib3.PoolManager(maxsize=32, headers=self._headers())
        self.root = site.directory / "root"
        self.root.mkdir()
        write_array(self.root / "cube.b2nd", CUBE, chunks=(10, 25, 30), blocks=(5, 5, 10))
        (self.root / "noise.bin").write_bytes(NOISE)
        if token is not None:
            site.environment["CATERVA2_TOKEN"] = token
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.broker = self._start("broker")
        site.environment["CATERVA2_BROKER"] = self.broker.url("broker")
        publisher = self._start("publisher", "foo", str(self.root), "--url", self.url)
        self.publisher = publisher.url("publisher")
        self.cache = site.directory / "nginx-cache"
        self.nginx = self._start_nginx(port, int(self.publisher.rsplit(":", 1)[1]))

    def _headers(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def _start(self, service: str, *arguments: str, state: str = "") -> Process:
        directory = str(self.site.directory / (state or service))
        return self.site.start(service, *arguments, "--listen", "127.0.0.1:0", "--state", directory)

    def _start_nginx(self, port: int, publisher: int) -> subprocess.Popen[bytes]:
        text = HOW_TO.read_text()
        for written, here in (
            ("127.0.0.1:8001", f"127.0.0.1:{publisher}"),
            ("listen 8080", f"listen 127.0.0.1:{port}"),
            ("/var/cache/nginx/caterva2", str(self.cache)),
        ):
            assert text.count(written) == 1
            text = text.replace(written, here)
        if self.token is not None:
            text = text.replace("#token: ", "").replace("THE-TOKEN", self.token)
        directory = self.site.directory / "nginx"
        directory.mkdir()
        (directory / "cache.conf").write_text(text)
        paths = "".join(
            f"{kind}_temp_path {directory};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (directory / "nginx.conf").write_text(
            f"daemon off;\npid {directory}/pid;\nerror_log stderr;\n"
            + ("user root;\n" if os.geteuid() == 0 else "")
            + f"events {{}}\nhttp {{\n{LIKE_DEBIAN}\n{paths}include {directory}/cache.conf;\n}}\n"
        )
        assert NGINX is not None
        process = subprocess.Popen([NGINX, "-c", str(directory / "nginx.conf"), "-p", str(directory)])
        wait_until(lambda: _connects(port))
        return process

    def close(self) -> None:
        self.nginx.terminate()
        self.nginx.wait(10)

    def subscriber(self, state: str = "subscriber") -> Process:
        """Start a subscriber that knows all; commands use it."""
        process = self._start("subscriber", state=state)
        self.site.environment["CATERVA2_SUBSCRIBER"] = process.url("subscriber")
        wait_until(lambda: [row["datasets"] for row in self.site.json("roots")] == [2])
        return process

    def get(self, target: str, **headers: str) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request("GET", self.url + target, headers={**self._headers(), **named})

    def version(self, name: str) -> str:
        """Return the target of the bytes of the version that the publisher has now."""
        answer = self.http.request("HEAD", f"{self.publisher}/data/foo/{name}")
        return f"/data/foo/{name}?version={answer.headers['ETag'].strip(chr(34))}"

    def answered(self, route: str = "/data/") -> int:
        """Return how many requests the publisher itself has answered on a route."""
        text = self.http.request("GET", f"{self.publisher}/metrics").data.decode()
        found = re.findall(rf'requests_total{{method="GET",route="{route}",status="20\d"}} (\S+)', text)
        return sum(int(float(value)) for value in found)


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(site: Site, token: str | None = None) -> Iterator[Behind]:
    behind = Behind(site, token)
    try:
        for name in ("noise.bin", "cube.b2nd"):
            url = f"{behind.publisher}/data/foo/{name}"
            wait_until(lambda url=url: behind.http.request("HEAD", url).status == 200)
        yield behind
    finally:
        behind.close()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """For tests that change nothing."""
    site = Site(tmp_path_factory.mktemp("site"))
    with running(site) as behind:
        yield behind
    site.close()


@pytest.fixture
def changing(site: Site) -> Iterator[Behind]:
    with running(site) as behind:
        yield behind


@pytest.mark.parametrize("ranges", ["bytes=1000-71000", "bytes=0-9,500000-599999,2000000-2000009", None])
def test_many_who_want_the_same_are_one_request(behind, ranges) -> None:
    target = behind.version("noise.bin")
    before = behind.answered()
    with ThreadPoolExecutor(16) as pool:
        headers = {} if ranges is None else {"Range": ranges}
        answers = list(pool.map(lambda _: behind.get(target, **headers), range(16)))
    assert {answer.status for answer in answers} == {200 if ranges is None else 206}
    assert len({answer.data for answer in answers}) == 1
    assert behind.answered() - before == 1
    direct = behind.http.request("GET", behind.publisher + target, headers=headers)
    wait_until(lambda: behind.answered() - before == 2)  # an answer is counted once it is sent
    assert len(answers[0].data) == len(direct.data)
    if ranges is None or "," not in ranges:
        assert answers[0].data == direct.data
    else:  # the boundaries differ
        assert NOISE[500_000:600_000] in answers[0].data


def test_what_names_no_version_passes_through(behind) -> None:
    target = "/data/foo/noise.bin"
    before = behind.answered()
    for _ in range(3):
        answer = behind.get(target, Range="bytes=5-9")
        assert (answer.status, answer.data, "X-Cache" in answer.headers) == (206, NOISE[5:10], False)
    assert behind.answered() - before == 3
    etag = answer.headers["ETag"]
    assert behind.get(target, If_None_Match=etag).status == 304
    assert behind.get(target, If_Match='"0"').status == 412
    assert behind.get(target, Range="bytes=5-9", If_Range='"0"').status == 200
    assert json.loads(behind.get("/api/info/foo/cube.b2nd").data)["shape"] == [40, 50, 60]


def test_a_browser_asks_again_with_a_condition(behind) -> None:
    target = behind.version("noise.bin")
    first = behind.get(target)
    before = behind.answered()
    again = behind.get(target, If_None_Match=first.headers["ETag"])
    assert (again.status, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert behind.get(target).headers["X-Cache"] == "HIT"
    assert "immutable" in behind.get(target).headers["Cache-Control"]
    assert behind.answered() == before


def test_forms_and_ranges_are_told_apart(behind) -> None:
    etag = behind.version("cube.b2nd").rpartition("=")[2]
    target = f"/api/fetch/foo/cube.b2nd?version={etag}"
    asked = [
        {"Accept": "application/octet-stream"},
        {"Accept": "application/vnd.caterva2.raw"},
        {"Accept": "application/octet-stream", "Range": "bytes=0-99"},
    ]
    first = [behind.get(target, **headers).data for headers in asked]
    assert len(set(first)) == 3
    assert first[1] == CUBE.tobytes()
    assert first[2] == (behind.root / "cube.b2nd").read_bytes()[:100]
    again = [behind.get(target, **headers) for headers in asked]
    assert [answer.data for answer in again] == first
    assert {answer.headers["X-Cache"] for answer in again} == {"HIT"}
    head = behind.http.request("HEAD", behind.url + behind.version("noise.bin"))
    assert (head.headers["Content-Length"], head.data) == (str(len(NOISE)), b"")
    assert behind.get(behind.version("noise.bin")).data == NOISE


def test_subscribers_share_what_one_has_fetched(behind) -> None:
    site = behind.site
    behind.subscriber("first")
    read = ("show", "foo/cube.b2nd[::7, 3, ::9]")
    expected = CUBE[::7, 3, ::9].tolist()
    assert site.json(*read) == expected
    before = behind.answered(), behind.answered("/api/manifest/")
    behind.subscriber("second")
    assert site.json(*read) == expected
    assert behind.answered() == before[0]
    assert behind.answered("/api/manifest/") - before[1] <= 1  # the head, without knowing the version


def test_a_change_is_seen_at_once_and_nothing_old(changing) -> None:
    site = changing.site
    changing.subscriber()
    assert site.json("show", "foo/cube.b2nd[3, 4, 5:9]") == CUBE[3, 4, 5:9].tolist()
    old = changing.version("cube.b2nd")
    for n in range(2):
        write_array(site.directory / "new", CUBE + n + 1, chunks=(10, 25, 30), blocks=(5, 5, 10))
        (site.directory / "new").rename(changing.root / "cube.b2nd")
        seen = site.json("info", "foo/cube.b2nd")["etag"]
        wait_until(lambda seen=seen: site.json("info", "foo/cube.b2nd")["etag"] != seen)
        for _ in range(3):
            assert site.json("show", "foo/cube.b2nd[3, 4, 5:9]") == (CUBE + n + 1)[3, 4, 5:9].tolist()
    gone = changing.get(old, Range="bytes=7-8")  # not in the cache
    assert (gone.status, gone.headers["Content-Type"]) == (412, "application/problem+json")
    assert json.loads(gone.data)["current_etag"] == changing.version("cube.b2nd").rpartition("=")[2]
    assert changing.get(old, Range="bytes=7-8").status == 412


@pytest.mark.parametrize("kind", ["data", "api/manifest"])
def test_what_is_damaged_in_the_cache_is_fetched_past_it(changing, kind) -> None:
    site = changing.site
    changing.subscriber("first")
    expected = base64.b64encode(NOISE[1_000_000:1_000_004]).decode()
    assert site.json("show", "foo/noise.bin[1000000:1000004]") == expected
    damaged = 0
    for file in changing.cache.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        if f"KEY: GET /{kind}/".encode() in data:
            place = data.find(NOISE[1_000_000:1_000_032]) if kind == "data" else len(data) - 32
            file.write_bytes(
                data[:place] + bytes(byte ^ 1 for byte in data[place : place + 32]) + data[place + 32 :]
            )
            damaged += place >= 0
    assert damaged
    changing.subscriber("second")
    assert site.json("show", "foo/noise.bin[1000000:1000004]") == expected
    changing.subscriber("third")  # the cache is right again
    before = changing.answered()
    assert site.json("show", "foo/noise.bin[1000000:1000004]") == expected
    assert changing.answered() == before


def test_answers_of_70_kb_are_not_delayed(behind) -> None:
    target, took_s = behind.version("noise.bin"), []
    for n in range(20):
        for result in ("MISS", "HIT"):
            began = time.perf_counter()
            answer = behind.get(target, Range=f"bytes={n}-{n + 70_000}")
            took_s.append(time.perf_counter() - began)
            assert (len(answer.data), answer.headers["X-Cache"]) == (70_001, result)
    for of_one_kind in (took_s[::2], took_s[1::2]):  # half of them at least, however busy the machine is
        assert statistics.median(of_one_kind) < 0.03


def test_events_come_through_at_once(changing) -> None:
    url = f"{changing.url}/api/events?pattern=foo"
    stream = changing.http.request("GET", url, preload_content=False, timeout=20)
    (changing.root / "more.bin").write_bytes(b"more")
    wait_until(lambda: b"foo/more.bin" in stream.read1(), 15)
    stream.close()


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl(behind) -> None:
    assert CURL is not None
    url = behind.url + behind.version("noise.bin")
    for _ in range(2):
        done = subprocess.run([CURL, "-sS", "-r", "100-199", url], capture_output=True, check=True)
        assert done.stdout == NOISE[100:200]
    done = subprocess.run([CURL, "-sS", "-i", "-r", "100-199", url], capture_output=True, check=True)
    assert b"X-Cache: HIT" in done.stdout


def test_with_a_token_that_nginx_checks_itself(site) -> None:
    with running(site, TOKEN) as behind:
        behind.subscriber()
        assert site.json("show", "foo/cube.b2nd[3, 4, 5:9]") == CUBE[3, 4, 5:9].tolist()
        target = behind.version("noise.bin")
        assert [behind.get(target).headers["X-Cache"] for _ in range(2)] == ["MISS", "HIT"]
        for authorization in ("Bearer wrong", f"Basic {TOKEN}", ""):
            assert behind.get(target, Authorization=authorization).status == 401
        with urllib3.PoolManager() as stranger:
            assert stranger.request("GET", behind.url + target).status == 401
            assert stranger.request("GET", f"{behind.url}/api/roots").status == 401
