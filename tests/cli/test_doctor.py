"""``cat2 doctor`` on what is well, and on one thing after the other that is not."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from caterva2.cli import main
from caterva2.cli.findings import Finding
from caterva2.testing.cluster import Cluster, running_cluster


@pytest.fixture
def doctor(running, monkeypatch, capsys, tmp_path):
    """Run the doctor; return exit code, and what it found by check (the worst of each)."""
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", running.url)
    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "config.toml"))
    for part in ("BROKER", "PUBLISHER", "SUBSCRIBER"):
        monkeypatch.setenv(f"CATERVA2_{part}_STATE", str(tmp_path / "state" / part))

    def doctor(*arguments: str) -> tuple[int, dict[str, Finding]]:
        code = main(["doctor", "--json", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        answer = json.loads(out)
        found = [Finding(**check) for check in answer["checks"]]
        assert answer["ok"] == (code == 0) == all(finding.state != "failed" for finding in found)
        assert all((finding.hint is None) == (finding.state == "ok") for finding in found)
        order = ["ok", "warning", "failed"]
        return code, {one.check: one for one in sorted(found, key=lambda one: order.index(one.state))}

    return doctor


@contextmanager
def answering(body: str, status: int = 200, **headers: str) -> Iterator[str]:
    """Run a service that is none of ours; give its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_all_is_well(doctor, running) -> None:
    code, found = doctor()
    assert code == 0
    assert {"versions", "configuration", "token", "subscriber", "service", "clock", "broker"} <= set(found)
    assert {"root foo", "source of foo", "cache", "clock of foo", "first read", "disk of subscriber"} <= set(
        found
    )
    assert "blosc2" in found["versions"].detail
    assert running.url in found["subscriber"].detail
    assert found["root foo"].state == "ok"


def test_it_is_printed_for_people(cat2, running, capsys) -> None:
    text = cat2("doctor")
    assert f"ok       subscriber: {running.url}" in text
    assert main(["doctor", "--subscriber", "http://127.0.0.1:1"]) == 1
    out, err = capsys.readouterr()
    assert "failed   subscriber: nobody listens" in out
    assert "cat2 serve" in out
    assert "1 failed" in err


def test_no_service_runs(doctor) -> None:
    code, found = doctor("--subscriber", "http://127.0.0.1:1")
    assert code == 1
    assert "cat2 serve" in str(found["subscriber"].hint)
    assert "service" not in found


def test_a_host_that_is_not_known(doctor) -> None:
    code, found = doctor("--subscriber", "http://caterva2.invalid:8002")
    assert (code, found["subscriber"].state) == (1, "failed")
    assert "caterva2.invalid" in found["subscriber"].detail


def test_what_is_no_subscriber(doctor, running) -> None:
    _, found = doctor("--subscriber", running.cluster.broker.address.url)
    assert "is a broker" in found["service"].detail
    code, found = doctor("--subscriber", running.cluster.publisher.address.url)
    assert code == 0, "a publisher answers the same requests"
    for status, body in ((200, "{}"), (200, "<html>"), (404, "not found"), (500, "")):
        with answering(body, status) as url:
            code, found = doctor("--subscriber", url)
            assert (code, found["service"].state) == (1, "failed"), (status, body)


def test_clocks_and_versions_that_differ(doctor) -> None:
    body = json.dumps({"service": "Caterva2 broker", "version": "99.1"})
    with answering(body, Date=formatdate(time.time() - 600, usegmt=True)) as url:
        code, found = doctor("--subscriber", url)
    assert (code, found["clock"].state) == (1, "warning")
    assert "behind" in found["clock"].detail


def test_settings_that_are_wrong(doctor, tmp_path) -> None:
    (tmp_path / "config.toml").write_text("[publisher]\nsettle_s = -1\n")
    code, found = doctor()
    assert (code, found["configuration"].state) == (1, "failed")
    assert "settle_s" in found["configuration"].detail
    (tmp_path / "config.toml").write_text("no toml")
    code, found = doctor()
    assert code == 1
    assert "not looked for" in found["subscriber"].detail
    assert doctor("--subscriber", "nonsense")[1]["subscriber"].state == "failed"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_token_that_others_can_read(doctor, tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t-t0k3n")
    token.chmod(0o644)
    (tmp_path / "config.toml").write_text('token_file = "token"\n')
    _, found = doctor()
    assert found["token"].state == "warning"
    assert f"chmod 600 {token}" in str(found["token"].hint)
    token.chmod(0o600)
    assert doctor()[1]["token"].state == "ok"
    token.unlink()
    code, found = doctor()
    assert (code, found["configuration"].state) == (1, "failed")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_directory_that_cannot_be_written(doctor, tmp_path) -> None:
    (tmp_path / "state").mkdir(mode=0o500)
    assert doctor()[1]["disk of broker"].state == "failed"


def test_a_state_directory_that_is_a_file_or_has_no_room(doctor, tmp_path, monkeypatch) -> None:
    (tmp_path / "state").write_text("")
    code, found = doctor()
    assert (code, found["disk of broker"].state) == (1, "failed")
    (tmp_path / "state").unlink()
    monkeypatch.setenv("CATERVA2_SUBSCRIBER_MIN_FREE_BYTES", "9999TB")
    code, found = doctor()
    assert (code, found["disk of subscriber"].state) == (0, "warning")


def test_a_service_that_hangs(doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        code, found = doctor("--subscriber", url, "--timeout-s", "0.2")
    assert (code, found["service"].state) == (1, "failed")


def test_what_the_others_lack_is_told(tmp_path, doctor, capsys) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.txt").write_text("one")
    with running_cluster(Cluster(tmp_path / "own", {"bar": root})) as running:
        running.run(running.cluster.stop("publisher"))
        catalogue = running.cluster.subscriber.catalogue
        running.wait_for(lambda: catalogue.roots["bar"].state == "offline")
        code, found = doctor("--subscriber", running.url)
        assert found["root bar"].state == "warning"
        assert "start its publisher" in str(found["root bar"].hint)
        assert (code, found["first read"].state) == (1, "failed")
        running.run(running.cluster.stop("broker"))
        bus = running.cluster.subscriber.bus
        running.wait_for(lambda: not bus.connected)
        code, found = doctor("--subscriber", running.url)
        assert (code, found["broker"].state) == (1, "failed")
