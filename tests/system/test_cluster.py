"""Three nats-servers with TLS, and users who may do no more than they need; servers are killed meanwhile.

``CATERVA2_KILLS=10`` kills each kind of server ten times, and says how long a root was not shown as online.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
import urllib3

from caterva2.bus.buckets import ALIVE, BUCKETS
from caterva2.bus.permissions import permissions_of, server_block
from caterva2.frame.write import write_array
from caterva2.testing.nats_cluster import DOMAIN, NatsCluster, NatsNode, TlsFiles, leaf_node, nats_cluster
from caterva2.testing.network import Network
from caterva2.testing.waiting import wait_until

from ..conftest import Process, Site

KILLS = int(os.environ.get("CATERVA2_KILLS", "0")) or 1
WINDOW_S = 30.0
"""Elections take up to 10 s; a busy machine takes its time."""

USERS = ("broker", "publisher", "subscriber")


class Group:
    """A cluster, who may use it, and services that do."""

    def __init__(self, site: Site, nats: NatsCluster, tls: TlsFiles) -> None:
        self.site, self.nats, self.tls = site, nats, tls
        self.http = urllib3.PoolManager(retries=False, timeout=20)
        self.root = site.directory / "root"
        self.root.mkdir()
        self.array = np.random.default_rng(1).integers(0, 1 << 14, (20, 300, 400), np.uint16)
        write_array(self.root / "a.b2nd", self.array, chunks=(5, 150, 200), blocks=(1, 50, 200))
        for user in USERS:
            self.credentials(user).write_text(f"{user}:secret-of-{user}\n")

    def credentials(self, user: str) -> Path:
        return self.site.directory / f"{user}.credentials"

    def bus(self, user: str) -> list[str]:
        flags = [word for url in self.nats.urls for word in ("--bus", url)]
        return [*flags, "--bus-credentials", str(self.credentials(user)), "--bus-ca", str(self.tls.ca)]

    def start(self, service: str, state: str, *arguments: str) -> Process:
        anywhere = ["--listen", "127.0.0.1:0", "--state", str(self.site.directory / state)]
        return self.site.start(service, *arguments, *anywhere)

    def get(self, url: str) -> Any:
        answer = self.http.request("GET", url)
        assert answer.status == 200, (url, answer.status, answer.data)
        return answer.json()

    def state(self, url: str) -> str:
        return str(self.get(f"{url}/api/roots").get("foo", {}).get("state"))

    def sees_all(self, url: str) -> bool:
        """Whether a subscriber knows what is in the directory, and says that this is confirmed."""
        rows = self.get(f"{url}/api/catalogue/foo?limit=10000")["rows"] if self.state(url) != "None" else []
        there = {path.name: path.stat().st_size for path in self.root.iterdir()}
        if {row["path"].removeprefix("foo/"): row["size"] for row in rows} != there:
            return False
        return bool(self.get(f"{url}/api/info/foo/a.b2nd")["freshness"] == "fresh")

    def wait_all(self, url: str) -> None:
        wait_until(lambda: self.sees_all(url), WINDOW_S)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    directory, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = TlsFiles(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(files.certificate)
    issued.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.ca)
    return files


def authorization(domain: str | None = None) -> tuple[str, dict[str, str]]:
    """Return the users as `cat2 bus check --permissions` prints them, and the passwords they refer to."""
    permissions = {user: permissions_of(user, ["foo"], domain=domain) for user in USERS}
    permissions["site"] = permissions_of("publisher", ["foo"], domain=DOMAIN)
    blocks = [server_block(user, permitted) for user, permitted in permissions.items()]
    users = "\n".join(block.removeprefix("authorization { users: [").removesuffix("] }") for block in blocks)
    passwords = {f"{user.upper()}_PASSWORD": f"secret-of-{user}" for user in permissions}
    return f"authorization {{ users: [ {users} ] }}", passwords


@contextmanager
def running(directory: Path, tls: TlsFiles, size: int) -> Iterator[Group]:
    configuration, passwords = authorization()
    with nats_cluster(
        directory / "nats", size=size, tls=tls, configuration=configuration, environment=passwords
    ) as nats:
        site = Site(directory)
        try:
            yield Group(site, nats, tls)
        finally:
            site.close()


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory, tls: TlsFiles) -> Iterator[Group]:
    with running(tmp_path_factory.mktemp("cluster"), tls, 3) as group:
        yield group


@pytest.fixture(scope="module")
def subscriber(group: Group) -> str:
    """A subscriber and a publisher that need no broker: somebody made the buckets."""
    group.site.run("bus", "check", "--role", "broker", *group.bus("broker"))
    group.start("publisher", "p", f"foo={group.root}", *group.bus("publisher"))
    url = group.start("subscriber", "s", *group.bus("subscriber")).url("subscriber")
    group.wait_all(url)
    return url


def test_whole_job_without_a_broker(group: Group, subscriber: str) -> None:
    shown = group.site.json("show", "foo/a.b2nd[3, 10:12, 7]", "--subscriber", subscriber)
    assert shown == group.array[3, 10:12, 7].tolist()
    (group.root / "changed").write_text("changed")
    group.wait_all(subscriber)
    for bucket in BUCKETS:
        assert group.nats.leader(f"KV_{bucket}") is not None
        detail = group.nats.nodes[0].ask("jsz?accounts=true&streams=true&config=true")["account_details"]
        configs = {d["name"]: d["config"] for account in detail for d in account["stream_detail"]}
        assert configs[f"KV_{bucket}"]["num_replicas"] == 3


def test_whole_job_through_a_broker_that_tells_no_credentials(group: Group, subscriber: str) -> None:
    broker = group.start("broker", "b", *group.bus("broker")).url("broker")
    assert group.get(f"{broker}/api/bus") == {"urls": group.nats.urls, "token": None}
    mine = ["--bus-credentials", str(group.credentials("subscriber")), "--bus-ca", str(group.tls.ca)]
    member = group.start("subscriber", "s2", "--broker", broker, *mine)
    group.wait_all(member.url("subscriber"))
    stranger = group.start("subscriber", "s3", "--broker", broker, "--bus-ca", str(group.tls.ca))
    stranger.wait_for_line("it wants credentials: set bus_credentials")
    doubter = group.start("subscriber", "s4", "--broker", broker, *mine[:2])
    doubter.wait_for_line("certificate is not trusted.*set bus_ca")
    assert "wants credentials" in group.get(f"{stranger.url('subscriber')}/health")["problem"]
    for service in (member, stranger, doubter):
        assert service.stop() == 0
        assert "secret-of" not in "\n".join(service.lines)


def test_root_that_is_not_permitted_is_said(group: Group, subscriber: str) -> None:
    publisher = group.start("publisher", "p2", f"bar={group.root}", *group.bus("publisher"))
    publisher.wait_for_line(r"c2_roots\.bar.*permission denied")
    assert "bar" not in group.get(f"{subscriber}/api/roots")
    health = group.get(f"{publisher.url('publisher')}/health")
    assert health["problem"] == "permission denied on the bus: $kv.c2_roots.bar"
    publisher.stop()


def test_bus_check(group: Group, subscriber: str) -> None:
    check = ["bus", "check", *group.bus("publisher"), "--role", "publisher"]
    found = group.site.json(*check, "--root", "foo")
    assert found["ok"]
    assert sum("TLS" in row["detail"] for row in found["checks"]) == 3
    denied = group.site.run(*check, "--root", "bar", code=1).stdout
    assert len(re.findall(r"^failed  write .*permission denied", denied, re.MULTILINE)) == 3
    untrusted = group.site.run("bus", "check", "--bus", group.nats.urls[0], code=1).stdout
    assert "set bus_ca" in untrusted
    group.site.run("bus", "check", "--bus", "nats://127.0.0.1:1", code=5)
    block = group.site.run("bus", "check", "--permissions", "--role", "publisher", "--root", "foo").stdout
    assert '"$KV.C2_DATA.foo.>"' in block


class Watcher:
    """Reads all the time, and notes the states of the root, in a thread."""

    def __init__(self, group: Group, url: str) -> None:
        self.states: list[tuple[float, str]] = []
        self.problems: list[str] = []
        self._group, self._url = group, url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watcher:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        raw = {"Accept": "application/vnd.caterva2.raw"}
        expected = self._group.array[3].tobytes()
        while not self._stop.wait(0.02):
            try:
                state = self._group.state(self._url)
                answer = self._group.http.request(
                    "GET", f"{self._url}/api/fetch/foo/a.b2nd?slice_=3", headers=raw
                )
                if answer.status != 200 or answer.data != expected:
                    self.problems.append(f"{answer.status} {answer.data[:200]!r}")
            except Exception as error:
                self.problems.append(repr(error))
                continue
            if not self.states or self.states[-1][1] != state:
                self.states.append((time.monotonic() - self._began, state))

    def away_s(self) -> float:
        """How long the root was not shown as online."""
        ends = [at for at, _ in self.states[1:]] + [time.monotonic() - self._began]
        return sum(end - at for (at, state), end in zip(self.states, ends, strict=True) if state != "online")


def victim(nats: NatsCluster, kind: str) -> NatsNode:
    """Return who is to be killed, once all have leaders."""
    wait_until(lambda: nats.leader() and all(nats.leader(f"KV_{bucket}") for bucket in BUCKETS), WINDOW_S)
    leaders = {"all": nats.leader(), **{bucket: nats.leader(f"KV_{bucket}") for bucket in BUCKETS}}
    found = {"leader of heartbeats": leaders[ALIVE], "leader of all": leaders["all"]}.get(kind)
    if found is not None:
        return found
    others = [node for node in nats.nodes if node not in (leaders["all"], leaders[ALIVE])]
    return next((node for node in others if node not in leaders.values()), others[0])


@pytest.mark.timeout(60 + 60 * KILLS)
@pytest.mark.parametrize("kind", ["follower", "leader of heartbeats", "leader of all"])
def test_killed_server_loses_no_change_and_no_presence(group: Group, subscriber: str, kind: str) -> None:
    """A root is online or, while servers elect, unknown; never offline, since its publisher lives."""
    for turn in range(KILLS):
        group.nats.wait_ready()
        group.wait_all(subscriber)
        node = victim(group.nats, kind)
        with Watcher(group, subscriber) as watcher:
            for number in range(10):
                (group.root / f"before-{kind}-{turn}-{number}").write_text(f"{number}" * number)
            node.kill()
            for number in range(10):
                (group.root / f"during-{kind}-{turn}-{number}").write_text(f"{number}" * number)
            (group.root / f"before-{kind}-{turn}-3").unlink()
            group.wait_all(subscriber)
            wait_until(lambda: watcher.states and watcher.states[-1][1] == "online", WINDOW_S)
        assert {state for _, state in watcher.states} <= {"online", "unknown"}, watcher.states
        assert watcher.problems == []
        print(f"{kind} {node.name} killed: not online for {watcher.away_s():.1f} s {watcher.states}")
        node.start()
    group.nats.wait_ready()


def test_bus_check_waits_for_an_election(group: Group, subscriber: str) -> None:
    """Who led the heartbeats is gone: nobody answers for them until another is elected."""
    node = victim(group.nats, "leader of heartbeats")
    node.kill()
    found = group.site.run("bus", "check", "--role", "broker", *group.bus("broker"), code=1).stdout
    node.start()
    group.nats.wait_ready()
    group.wait_all(subscriber)
    failed = [line for line in found.splitlines() if line.startswith("failed")]
    assert [line for line in failed if "cannot follow" not in line] == [
        line for line in failed if line.startswith(f"failed  server tls://127.0.0.1:{node.port}")
    ], found


def test_site_behind_a_firewall_has_a_leaf_node(tmp_path: Path, tls: TlsFiles) -> None:
    """Services there reach the leaf node alone; only that one goes out. Its link is cut, and healed."""
    with running(tmp_path, tls, 1) as group, Network() as network:
        hub = group.nats.nodes[0]
        way_out = network.link(hub.leaf_port)
        out = [f"tls://site:secret-of-site@127.0.0.1:{way_out.port}"]
        users, passwords = authorization(DOMAIN)
        users = f"{users.removesuffix('] }')} {{ user: anybody, password: secret-of-anybody }} ] }}"
        with leaf_node(tmp_path / "leaf", out, tls, configuration=users, environment=passwords) as leaf:
            group.site.run("bus", "check", "--role", "broker", *group.bus("broker"))

            def inside(user: str) -> list[str]:
                credentials = str(group.credentials(user))
                return ["--bus", f"nats://127.0.0.1:{leaf.port}", "--bus-credentials", credentials]

            group.start("publisher", "p", f"foo={group.root}", *inside("publisher"))
            urls = [
                group.start("subscriber", "s1", *inside("subscriber")).url("subscriber"),
                group.start("subscriber", "s2", *group.bus("subscriber")).url("subscriber"),
            ]
            for url in urls:
                group.wait_all(url)
            way_out.set_state("cut")
            (group.root / "while-cut").write_text("while cut")
            wait_until(lambda: group.state(urls[0]) == "unknown")  # it cannot tell
            wait_until(lambda: group.state(urls[1]) == "offline")  # nothing comes from there
            way_out.set_state("open")
            for url in urls:
                group.wait_all(url)
            assert group.site.json("bus", "check", *inside("subscriber"))["ok"]
            # what the leaf node permits to anybody, the cluster does not permit to the site
            group.credentials("anybody").write_text("anybody:secret-of-anybody")
            more = ["bus", "check", "--role", "publisher", *inside("anybody"), "--root"]
            group.site.run(*more, "foo")
            group.site.run(*more, "bar", code=1)
            assert way_out.received_bytes > 0
