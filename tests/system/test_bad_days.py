"""Processes killed, addresses taken, hosts gone: clear errors, right exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.testing.samples import write_example
from caterva2.testing.waiting import wait_until


def children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_subscriber_is_exit_code_5(site) -> None:
    started = time.monotonic()
    done = site.run("roots", "--subscriber", "http://127.0.0.1:1", code=5)
    assert "http://127.0.0.1:1" in done.stderr
    assert "cat2 subscriber" in done.stderr
    assert time.monotonic() - started < 10


def test_a_port_in_use_is_named(site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = site.run("subscriber", "--listen", address, "--state", "state", code=1)
    assert address in done.stderr
    assert "in use" in done.stderr


@pytest.mark.parametrize("service", ["broker", "publisher", "subscriber"])
def test_no_token_no_network(site, service) -> None:
    (site.directory / "data").mkdir()
    roots = ["foo=data"] if service == "publisher" else []
    done = site.run(service, *roots, "--listen", "0.0.0.0:0", "--state", "state", code=2)
    assert "token" in done.stderr


def test_a_missing_directory_is_named(site) -> None:
    done = site.run("publisher", "foo", "not there", "--state", "state", code=2)
    assert "not there" in done.stderr


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_killing_the_broker_takes_its_nats_along_and_a_restart_keeps_the_ports(site) -> None:
    start = ["broker", "--listen", "127.0.0.1:0", "--state", str(site.directory / "broker")]
    broker = site.start(*start)
    url = broker.url("broker")
    (child,) = children(broker.popen.pid)
    second = site.run(*start, code=1)
    assert str(broker.popen.pid) in second.stderr
    bus = urllib.request.urlopen(f"{url}/api/bus").read()
    broker.kill()
    deadline = time.monotonic() + 5
    while alive(child):
        assert time.monotonic() < deadline, "the nats-server outlived its broker"
        time.sleep(0.02)
    again = site.start(*start)
    assert again.url("broker") == url
    assert urllib.request.urlopen(f"{url}/api/bus").read() == bus
    assert again.stop(signal.SIGINT) == 0


def test_everything_survives_kill_and_restart_and_reads_go_on_offline(site) -> None:
    root = write_example(site.directory / "data")
    broker, publisher, subscriber = site.start_three(root)
    wait_until(lambda: site.json("roots") and site.json("roots")[0]["datasets"] == 6)
    expected = site.json("show", "foo/dir1/ds-2d.b2nd[2]")
    url = site.environment["CATERVA2_SUBSCRIBER"]
    for process in (broker, publisher, subscriber):
        process.kill()

    listen = url.removeprefix("http://")
    site.start("subscriber", "--listen", listen, "--state", str(site.directory / "subscriber")).url(
        "subscriber"
    )
    assert site.json("show", "foo/dir1/ds-2d.b2nd[2]") == expected
    assert len(site.json("list", "foo")) == 6
    assert site.json("info", "foo/dir1/ds-2d.b2nd")["freshness"] == "unverified"
    assert site.json("roots")[0]["state"] in ("unknown", "offline")
    started = time.monotonic()
    done = site.run("show", "foo/dir2/ds-4d.b2nd[0]", code=5)
    assert time.monotonic() - started < 5
    assert "foo" in done.stderr

    broker_listen = site.environment["CATERVA2_BROKER"].removeprefix("http://")
    site.start("broker", "--listen", broker_listen, "--state", str(site.directory / "broker")).url("broker")
    write_array(root / "ds-1d.b2nd", np.arange(1000) * 2, chunks=[100], blocks=[10])
    site.start(
        "publisher", "foo", str(root), "--listen", "127.0.0.1:0", "--state", str(site.directory / "publisher")
    ).url("publisher")
    wait_until(lambda: site.json("roots")[0]["state"] == "online")
    wait_until(lambda: site.json("show", "foo/ds-1d.b2nd[999]") == 1998)
    assert site.json("show", "foo/dir2/ds-4d.b2nd[1,2,3,4]") == [119, 0]


def test_an_interrupted_client_exits_with_130(site) -> None:
    (site.directory / "data").mkdir()
    serve = site.start("broker", "--listen", "127.0.0.1:0", "--state", str(site.directory / "broker"))
    events = site.start("events", "--subscriber", serve.url("broker"))
    with pytest.raises(subprocess.TimeoutExpired):
        events.popen.wait(timeout=1.5)
    assert events.stop(signal.SIGINT) == 130


def test_a_token_is_needed_everywhere_and_shown_nowhere(site) -> None:
    token = "correct-horse-battery"
    root = write_example(site.directory / "data")
    site.environment["CATERVA2_TOKEN"] = token
    services = site.start_three(root)
    wait_until(lambda: site.json("roots") and site.json("roots")[0]["datasets"] == 6)
    assert site.json("show", "foo/ds-1d.b2nd[7]") == 7
    for service, process in zip(("broker", "publisher", "subscriber"), services, strict=True):
        for target in ("/api/roots", "/api/bus", "/metrics", "/data/foo/README.md"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(process.url(service) + target)
            assert refused.value.code == 401
            refused.value.close()
        command = Path(f"/proc/{process.popen.pid}/cmdline")
        if command.exists():
            assert token not in command.read_text()
            for child in children(process.popen.pid):
                assert token not in Path(f"/proc/{child}/cmdline").read_text()
    site.environment["CATERVA2_TOKEN"] = "wrong-horse-battery"
    done = site.run("roots", code=4)
    assert "token" in done.stderr
    for process in services:
        process.stop()
        assert token not in "\n".join(process.lines)
    assert os.environ.get("CATERVA2_TOKEN") is None
