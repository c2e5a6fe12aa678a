"""Services started before their broker: they serve, say once what is missing, and join when it comes."""

from __future__ import annotations

import socket

from caterva2.testing.samples import write_example
from caterva2.testing.waiting import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_services_wait_for_their_broker(site) -> None:
    root = write_example(site.directory / "data")
    listen = f"127.0.0.1:{free_port()}"
    site.environment["CATERVA2_BROKER"] = f"http://{listen}"
    anywhere = ["--listen", "127.0.0.1:0", "--state"]
    publisher = site.start("publisher", f"foo={root}", *anywhere, str(site.directory / "publisher"))
    subscriber = site.start("subscriber", *anywhere, str(site.directory / "subscriber"))
    site.environment["CATERVA2_SUBSCRIBER"] = subscriber.url("subscriber")
    wait_until(lambda: len(site.json("list", "foo", "--subscriber", publisher.url("publisher"))) == 6)
    assert site.json("roots") == []
    site.start("broker", "--listen", listen, "--state", str(site.directory / "broker")).url("broker")
    wait_until(lambda: [row["datasets"] for row in site.json("roots")] == [6], 30)
    assert site.json("show", "foo/ds-1d.b2nd[3]") == 3
    for service in (publisher, subscriber):
        said = [line for line in service.lines if "unreachable" in line]
        assert len(said) == 1, service.lines
        assert listen in said[0]
        assert service.stop() == 0
