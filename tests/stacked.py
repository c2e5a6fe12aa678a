"""Groups one below the other, each with its own broker, joined by subscribers that are tiers; links count."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import urllib3

from caterva2.errors import StateInUse
from caterva2.state import StateLock
from caterva2.testing.network import Link, Network
from caterva2.testing.processes import ForkedService
from caterva2.testing.waiting import wait_until

ANSWER_S = 20.0
RAW = "application/vnd.caterva2.raw"


class Way:
    """What leads from a group up to the one above: to its broker, its bus, and to who serves its data."""

    def __init__(self, network: Network, **shape: float) -> None:
        self.bus = network.link(1, **shape)
        self.broker = network.link(1, self._lead_through, **shape)
        self.data = network.link(1, **shape)

    def _lead_through(self, piece: bytes) -> bytes:
        """Lead the bus that a broker names through our own link."""
        found = re.search(rb"nats://127\.0\.0\.1:(\d{5})", piece)
        if found is None:
            return piece
        self.bus.target = int(found[1])
        return piece.replace(found[1], b"%05d" % self.bus.port)

    @property
    def links(self) -> list[Link]:
        return [self.broker, self.bus, self.data]

    def set_state(self, state: str) -> None:
        for link in self.links:
            link.set_state(state)


def _is_free(directory: Path) -> bool:
    try:
        with StateLock(directory):
            return True
    except StateInUse:
        return False


class Stack:
    """A publisher of ``foo`` in group 0, and ``depth`` further groups; tier *n* is between *n - 1* and *n*.

    Attributes
    ----------
    ways : list of Way
        The way up from group n to group n - 1 is the one of number n - 1.
    commands : dict of str to list of str
        Command lines by the same names; may be changed before a service is started again.
    urls : dict of str to str
        By name: ``broker 0``, ``publisher``, ``tier 1``, ``broker 1``, …, and what is started beside them.
    slices : str
        Whether those that are started from now on ask for slices; see `tests.conftest.ON_ONE_MACHINE`.
    """

    def __init__(
        self,
        directory: Path,
        root: Path,
        depth: int,
        *,
        tokens: list[str] | None = None,
        slices: str = "never",
    ) -> None:
        self.directory, self.root, self.depth = directory, root, depth
        self.slices = slices
        self.tokens = tokens
        self.services: dict[str, ForkedService] = {}
        self.urls: dict[str, str] = {}
        self.commands: dict[str, list[str]] = {}
        self._groups: dict[str, int] = {}
        self._stack = ExitStack()
        self._pool = urllib3.PoolManager(maxsize=64, retries=False, timeout=ANSWER_S)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._kill_all)
            network = stack.enter_context(Network())
            self.ways = [Way(network) for _ in range(self.depth)]
            self._start_group(0)
            data = f"http://127.0.0.1:{self.ways[0].data.port}"
            own = ["foo", str(self.root), "--url", data, "--settle-s", "0.05"]
            self.start("publisher", 0, "publisher", *own)
            self.ways[0].data.target = port_of(self.urls["publisher"])
            for number in range(1, self.depth + 1):
                self._start_group(number)
                self.start_tier(number)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.clear()
        self._stack.close()

    def _kill_all(self) -> None:
        for service in self.services.values():
            service.kill()

    # -- services --------------------------------------------------------------------------------

    def _start_group(self, number: int) -> None:
        url = self.start(f"broker {number}", number, "broker")
        if number < self.depth:
            self.ways[number].broker.target = port_of(url)

    def broker_above(self, number: int) -> str:
        """Return the broker of the group above one, through the link."""
        return f"http://127.0.0.1:{self.ways[number - 1].broker.port}"

    def start_tier(self, number: int) -> None:
        options = ["--republish-to", self.urls[f"broker {number}"]]
        if number < self.depth:
            options += ["--republish-url", f"http://127.0.0.1:{self.ways[number].data.port}"]
        if self.tokens is not None:
            options += ["--republish-token-file", str(self.token_file(number))]
        self.start(f"tier {number}", number - 1, "subscriber", *options, broker=self.broker_above(number))
        if number < self.depth:
            self.ways[number].data.target = port_of(self.urls[f"tier {number}"])

    def start_leaf(self, name: str = "leaf", number: int | None = None) -> str:
        """Start a subscriber of a group, the last one by default; return its URL."""
        return self.start(name, self.depth if number is None else number, "subscriber")

    def start(self, name: str, group: int, *command: str, broker: str | None = None) -> str:
        """Start a service in a group; return its URL."""
        listen = ["--listen", "127.0.0.1:0", "--state", str(self.directory / name)]
        if command[0] != "broker":
            listen += ["--broker", broker or self.urls[f"broker {group}"]]
        if self.tokens is not None:
            listen += ["--token-file", str(self.token_file(group))]
        self.commands[name] = [*command, *listen]
        self._groups[name] = group
        return self.restart(name)

    def restart(self, name: str) -> str:
        """Start a service (again) where it was, on its state."""
        command = list(self.commands[name])
        if name in self.urls:
            command[command.index("127.0.0.1:0")] = self.urls[name].removeprefix("http://")
        environment = {
            "CATERVA2_CONFIG": str(self.directory / "none.toml"),
            "CATERVA2_SUBSCRIBER_SLICES": self.slices,
        }
        service = ForkedService(command, self.directory / f"{name}.log", environment)
        self.services[name] = service
        self.urls[name] = service.wait_listening()
        return self.urls[name]

    def kill(self, name: str) -> None:
        """Kill -9; the child of a broker has its store open for some moments more."""
        self.services.pop(name).kill()
        bus = self.directory / name / "bus"
        if bus.is_dir():
            wait_until(lambda: _is_free(bus))

    def stop(self, name: str) -> None:
        """Ask a service to stop, and wait until it has."""
        service = self.services.pop(name)
        service.signal(signal.SIGTERM)
        wait_until(lambda: not service.alive)
        service.kill()

    def log(self, name: str) -> str:
        """Return what a service said."""
        return (self.directory / f"{name}.log").read_text()

    def token_file(self, group: int) -> Path:
        """Return the file with the token of a group."""
        assert self.tokens is not None
        file = self.directory / f"token {group}"
        file.write_text(self.tokens[group])
        return file

    # -- asking ----------------------------------------------------------------------------------

    def post(self, name: str, path: str) -> None:
        assert self.get(name, path, method="POST").status == 200

    def get(self, name: str, path: str, method: str = "GET", **headers: str) -> urllib3.BaseHTTPResponse:
        """Ask a service by its name."""
        if self.tokens is not None:
            headers["Authorization"] = f"Bearer {self.tokens[self._groups[name]]}"
        return self._pool.request(method, self.urls[name] + path, headers=headers)

    def json(self, name: str, path: str) -> Any:
        answer = self.get(name, path)
        assert answer.status == 200, (name, path, answer.status, answer.data)
        return json.loads(answer.data)

    def info(self, name: str, root: str = "foo") -> dict[str, Any]:
        """Return what a service says of a root; nothing if it does not know it."""
        return self.json(name, "/api/roots").get(root, {})

    def is_fresh(self, name: str) -> bool:
        return self.info(name).get("freshness") == "fresh"

    def etags(self, name: str) -> dict[str, str]:
        """Return the datasets that a service knows, and their versions."""
        if not self.info(name):
            return {}
        rows = self.json(name, "/api/catalogue/foo?limit=10000")["rows"]
        return {row["path"]: row["etag"] for row in rows}

    def wait_republishes(self, name: str) -> None:
        """Wait until a tier announces the root."""
        wait_for(lambda: "foo" in self.json(name, "/health")["republished"], 20, lambda: self.log(name))

    def wait_refused(self, name: str, reason: str) -> None:
        """Wait until a tier says why it does not announce the root."""

        def refused() -> bool:
            return reason in self.json(name, "/health")["refused"].get("foo", "")

        wait_for(refused, 20, lambda: (self.json(name, "/health"), self.log(name)))

    def wait_current(self, name: str, timeout_s: float = 20.0) -> None:
        """Wait until a service knows for sure what the publisher has."""

        def current() -> bool:
            return self.is_fresh(name) and self.etags(name) == self.etags("publisher")

        wait_for(current, timeout_s, lambda: (self.info(name), self.etags(name), self.etags("publisher")))


def wait_for(condition: Callable[[], object], timeout_s: float, what: Callable[[], object]) -> None:
    """Wait until a condition is true; say of a failure how it is instead."""
    try:
        wait_until(condition, timeout_s)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {what()}") from error


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])
