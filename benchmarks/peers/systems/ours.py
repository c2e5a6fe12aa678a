"""Caterva2 as this checkout has it: broker, publisher, and a subscriber beside the client."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks.peers.case import Case
from benchmarks.peers.services import Service, Services
from benchmarks.peers.system import Read, System
from benchmarks.peers.systems.blosc2_file import write_b2nd

IMPORTED_S = 2.0
"""After so long, in seconds, a service has imported what it imports in the background."""

LISTENING = r"listening on (http://\S+)"


class Ours(System):
    """Our services and our client."""

    name = "ours"
    title = "Caterva2 (this checkout), warm subscriber"
    dataset = "b2nd"
    kind = "ours"
    package = "caterva2"
    caches = True
    environment_of_services: ClassVar[Mapping[str, str]] = {}
    _broker: str

    def prepare(self, values: Any, case: Case, target: Path) -> None:
        """Write a ``.b2nd`` file."""
        write_b2nd(values, case, target)

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Connect to the subscriber."""
        import caterva2

        return caterva2.connect(address)["foo/a.b2nd"].__getitem__

    def serve(self, services: Services, data: Path) -> int:
        """Start all three services."""
        self._serve_publisher(services, data, None)
        return self._serve_subscriber(services)

    def serve_far(self, services: Services, data: Path, network: Any, shape: dict[str, float]) -> Any:
        """Start broker and publisher; the link is between that and the subscribers to come."""
        link = network.link(0, **shape)
        url = self._serve_publisher(services, data, f"http://127.0.0.1:{link.port}")
        link.target = urlsplit(url).port
        return link

    def visit(self, services: Services, data: Path, link: Any) -> str:
        """Start a subscriber that has nothing yet, in place of the one before."""
        services.end("subscriber")
        port = self._serve_subscriber(services)
        time.sleep(IMPORTED_S)  # one that serves has been there for a while, as the peers' servers have
        return self.address(port, data)

    def address(self, port: int, data: Path) -> str:
        """Return the URL of the subscriber."""
        return f"http://127.0.0.1:{port}"

    def _serve_publisher(self, services: Services, data: Path, url: str | None) -> str:
        self._broker = self._start(services, "broker").wait_for_words(LISTENING)
        options = ["--broker", self._broker, *(["--url", url] if url else [])]
        return self._start(services, "publisher", f"foo={data}", *options).wait_for_words(LISTENING)

    def _serve_subscriber(self, services: Services) -> int:
        subscriber = self._start(services, "subscriber", "--broker", self._broker)
        url = subscriber.wait_for_words(LISTENING)
        subscriber.wait_until(lambda: _knows(url))
        port = urlsplit(url).port
        assert port is not None
        return port

    def _start(self, services: Services, verb: str, *options: str) -> Service:
        state = tempfile.mkdtemp(dir=services.directory, prefix=f"state-{verb}-")
        command = [sys.executable, "-m", "caterva2", verb, *options, "--listen", "127.0.0.1:0"]
        return services.start(verb, [*command, "--state", state], self.environment_of_services)


class OursUndecoded(Ours):
    """The same, where the subscriber keeps no blocks decoded."""

    name = "ours-undecoded"
    title = "ours, nothing kept decoded"
    kind = "variant"
    environment_of_services: ClassVar[Mapping[str, str]] = {"CATERVA2_SUBSCRIBER_DECODED_CACHE_BYTES": "0"}


def _knows(url: str) -> bool:
    """Whether a subscriber has heard of the dataset; it asks the publisher nothing for that."""
    with suppress(OSError), urlopen(f"{url}/api/list/foo") as answer:  # an answer of 404 is an OSError
        return "a.b2nd" in json.load(answer)
    return False
