"""A broker, a publisher and a subscriber that stay for several tests of the bus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from caterva2.state import process_exists
from caterva2.testing.waiting import wait_until

from ..conftest import Site
from .conftest import Asker


class Sharing:
    """A broker, a publisher and a subscriber; what is published, and who sees it."""

    def __init__(self, site: Site, ask: Asker) -> None:
        self.site, self.ask = site, ask
        self.root = site.directory / "root"
        self.root.mkdir()
        self._numbers = count()
        self.change()
        self.broker, self.publisher, self.subscriber = site.start_three(self.root)
        self.url = self.subscriber.url("subscriber")
        self.agree_s(self.url, time.monotonic())

    @property
    def nats(self) -> int:
        """Process id of the broker's child."""
        pid = self.broker.popen.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    @property
    def store(self) -> Path:
        """What the bus keeps on disk."""
        return self.site.directory / "broker" / "bus" / "store"

    def change(self, times: int = 1) -> None:
        """Add, replace and delete files."""
        for _ in range(times):
            n = next(self._numbers)
            (self.root / f"new-{n}").write_text(f"new {n}")
            (self.root / "changed").write_text("again" * n)
            (self.root / f"new-{n - 2}").unlink(missing_ok=True)

    def start_publisher(self) -> None:
        """Start the publisher on the state of the one before."""
        state = str(self.site.directory / "publisher")
        self.publisher = self.site.start(
            "publisher", "foo", str(self.root), "--listen", "127.0.0.1:0", "--state", state
        )
        self.publisher.url("publisher")

    def kill_broker(self) -> None:
        """Kill the broker, and wait for its child to end too: until then that has its store open."""
        child = self.nats
        self.broker.kill()
        wait_until(lambda: not process_exists(child))

    def start_broker(self) -> None:
        """Start the broker where it was."""
        listen = self.site.environment["CATERVA2_BROKER"].removeprefix("http://")
        state = str(self.site.directory / "broker")
        self.broker = self.site.start("broker", "--listen", listen, "--state", state)
        self.broker.url("broker")

    def new_subscriber_s(self) -> float:
        """How long it takes a new subscriber, from when it listens."""
        state = str(self.site.directory / f"new-{next(self._numbers)}")
        subscriber = self.site.start("subscriber", "--listen", "127.0.0.1:0", "--state", state)
        url = subscriber.url("subscriber")
        seconds = self.agree_s(url, time.monotonic())[1]
        subscriber.stop()
        return seconds

    def state(self, url: str) -> str:
        """Return the state of the root, as somebody knows it."""
        return self.ask.json(f"{url}/api/roots")["foo"]["state"]

    def is_equal(self, url: str) -> bool:
        """Whether a subscriber's view is the directory."""
        rows = self.ask.json(f"{url}/api/catalogue/foo?limit=10000")["rows"] if self._knows(url) else ()
        here = {f"foo/{file.name}": file.stat().st_size for file in self.root.iterdir()}
        return {row["path"]: row["size"] for row in rows} == here

    def _knows(self, url: str) -> bool:
        return "foo" in self.ask.json(f"{url}/api/roots")

    def is_fresh(self, url: str) -> bool:
        return self._knows(url) and self.ask.metric(url, 'caterva2_subscriber_fresh{root="foo"') == 1

    def is_doubted(self) -> bool:
        return not self.is_fresh(self.url)

    def agree_s(self, url: str, since: float) -> tuple[float, float]:
        """Wait until a subscriber's view is the directory, and until it is confirmed: seconds of both."""
        wait_until(lambda: self.is_equal(url))
        equal_s = time.monotonic() - since
        wait_until(lambda: self.is_fresh(url) and self.is_equal(url))
        return equal_s, time.monotonic() - since


@contextmanager
def running(directory: Path) -> Iterator[Sharing]:
    """Run the three in a directory, for as long as the context lasts."""
    site, ask = Site(directory), Asker()
    try:
        yield Sharing(site, ask)
    finally:
        site.close()
        ask.close()
