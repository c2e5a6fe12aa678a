"""What the how-to pages say to configure is run."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from caterva2.bus.server import find_binary
from caterva2.testing.samples import write_example
from caterva2.testing.waiting import wait_until

from ..docs.pages import blocks_of

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    return [block.text for block in blocks_of(PAGES / page, language)]


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "ca")}
    issued.cert_chain_pems[0].write_to_path(files["certificate"])
    issued.private_key_pem.write_to_path(files["key"])
    authority.cert_pem.write_to_path(files["ca"])
    return files


def test_nats_server_takes_the_configurations(site, certificates: dict[str, Path]) -> None:
    permissions = [["broker"], ["subscriber"], ["publisher", "--root", "foo", "--root", "bar"]]
    for role in permissions:
        users = site.run("bus", "check", "--permissions", "--role", *role).stdout
        variables = dict.fromkeys(re.findall(r"password: \$(\w+)", users), "secret-of-it")
        (site.directory / "users.conf").write_text(users)
        configurations = blocks("nats-cluster.md", "text")
        assert len(configurations) == 2
        for configuration in configurations:
            text = configuration.replace("/var/lib/nats", str(site.directory / "store"))
            for name, kind in (("n1.pem", "certificate"), ("n1.key", "key"), ("ca.pem", "ca")):
                text = text.replace(f"/etc/nats/{name}", str(certificates[kind]))
            path = site.directory / "nats.conf"
            path.write_text(text)
            command = [find_binary(), "-t", "-c", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
            assert done.returncode == 0, done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def proxied(tmp_path: Path, certificates: dict[str, Path]) -> Iterator[dict[int, int]]:
    """Run nginx as the page says, for three services; ports that they are to listen on, by those of nginx."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    (block,) = blocks("internet.md", "nginx")
    ports = {free_port(): free_port() for _ in range(3)}
    servers = []
    for outside, inside in ports.items():
        server = block.replace("listen 443", f"listen 127.0.0.1:{outside}").replace(":8001", f":{inside}")
        server = server.replace("/etc/ssl/store.example.org.pem", str(certificates["certificate"]))
        servers.append(server.replace("/etc/ssl/store.example.org.key", str(certificates["key"])))
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n" + "\n".join(servers) + "\n}\n"
    )
    process = subprocess.Popen([nginx, "-c", str(path), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)
    yield ports
    process.terminate()
    process.wait(10)


def test_services_behind_a_proxy_with_a_certificate_of_ones_own(
    site, certificates: dict[str, Path], proxied: dict[int, int]
) -> None:
    root = write_example(site.directory / "data")
    (site.directory / "token").write_text("a-token-of-the-group")
    site.environment["CATERVA2_TOKEN"] = "a-token-of-the-group"
    (broker, own_broker), (publisher, own_publisher), (subscriber, own_subscriber) = proxied.items()
    site.start("broker", "--listen", f"127.0.0.1:{own_broker}", "--state", str(site.directory / "b"))
    asked = ["--broker", f"https://localhost:{broker}"]
    untrusting = site.start(
        "subscriber", *asked, "--listen", "127.0.0.1:0", "--state", str(site.directory / "u")
    )
    untrusting.wait_for_line("certificate verify failed.*bus unreachable")
    site.environment["SSL_CERT_FILE"] = str(certificates["ca"])
    url = ["--url", f"https://localhost:{publisher}"]
    at = ["--listen", f"127.0.0.1:{own_publisher}", "--state", str(site.directory / "p")]
    site.start("publisher", f"foo={root}", *asked, *at, *url)
    at = ["--listen", f"127.0.0.1:{own_subscriber}", "--state", str(site.directory / "s")]
    site.start("subscriber", *asked, *at).url("subscriber")
    site.environment["CATERVA2_SUBSCRIBER"] = f"https://localhost:{subscriber}"
    wait_until(lambda: [row["datasets"] for row in site.json("roots")] == [6], 30)
    assert site.json("roots")[0]["publisher"] == f"https://localhost:{publisher}"
    assert site.json("show", "foo/ds-1d.b2nd[3]") == 3
    listener = site.start("events", "--count", "1", "--for-s", "30")
    (root / "new").write_text("new")
    assert listener.popen.wait(30) == 0  # told while the stream goes on
