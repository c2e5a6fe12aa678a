"""A site under attack: three processes, what is published and its truth, and a way to ask."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import urllib3

from caterva2.config import Address, SubscriberSettings
from caterva2.frame.write import write_array
from caterva2.model.path import DatasetPath
from caterva2.subscriber.service import SubscriberService
from caterva2.testing.faults import FaultyOrigin
from caterva2.testing.origin import MemoryOrigin
from caterva2.testing.waiting import wait_until

RAW = "application/vnd.caterva2.raw"
SHAPE = (48, 80, 100)
CHUNKS, BLOCKS = (16, 40, 50), (4, 20, 50)
ANSWER_S = 20.0
"""Silence for so long is a hang: twice what a subscriber waits for a publisher."""


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 14, shape, np.uint16)


class Asker:
    """Asks over HTTP, from any number of threads, without ever asking twice."""

    def __init__(self) -> None:
        self._pool = urllib3.PoolManager(
            maxsize=64, retries=False, timeout=urllib3.Timeout(connect=ANSWER_S, read=ANSWER_S)
        )

    def get(self, url: str, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        return self._pool.request("GET", url, headers=headers)

    def json(self, url: str) -> Any:
        answer = self.get(url)
        assert answer.status == 200, (url, answer.status, answer.data)
        return answer.json()

    def metric(self, url: str, name: str) -> int:
        """Return a metric summed over its labels; ``name`` may go on with a part of them."""
        text = self.get(f"{url}/metrics").data.decode()
        found = re.findall(rf"^{re.escape(name)}\S* (\S+)$", text, re.MULTILINE)
        assert found or "{" in name, f"no metric {name} in\n{text}"
        return int(sum(map(float, found)))

    def part(self, url: str, name: str, selection: str = "") -> np.ndarray:
        """Return a part of an array."""
        answer = self.get(f"{url}/api/fetch/foo/{name}?slice_={quote(selection)}", {"Accept": RAW})
        assert answer.status == 200, (name, selection, answer.status, answer.data)
        shape = json.loads(answer.headers["X-Caterva2-Shape"])
        return np.frombuffer(answer.data, json.loads(answer.headers["X-Caterva2-Dtype"])).reshape(shape)

    def stored(self, url: str, name: str) -> bytes:
        """Return the stored bytes of a dataset."""
        answer = self.get(f"{url}/api/download/foo/{name}")
        assert answer.status == 200, (name, answer.status, answer.data)
        return answer.data

    def close(self) -> None:
        self._pool.clear()


@pytest.fixture
def ask() -> Iterator[Asker]:
    asker = Asker()
    yield asker
    asker.close()


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:  # Any: a Sharing, which imports this
    """A broker, a publisher and a subscriber, for all tests of a module."""
    from .sharing import running

    with running(tmp_path_factory.mktemp("sharing")) as sharing:
        yield sharing


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Arrays of about 600 kB that hardly compress, by name."""
    return {f"a{number}.b2nd": noise(number) for number in range(5)}


@pytest.fixture
def root(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A directory with the arrays, and a file of 1.5 MB and a bit."""
    directory = tmp_path / "root"
    directory.mkdir()
    for name, array in arrays.items():
        write_array(directory / name, array, chunks=CHUNKS, blocks=BLOCKS)
    (directory / "plain.bin").write_bytes(np.random.default_rng(99).bytes(1_500_011))
    return directory


@pytest.fixture
def start(site, ask, root):
    """Start the three, and return publisher and subscriber once all is announced."""

    def start(**options: str):
        _, publisher, subscriber = site.start_three(root, **options)
        wait_for_all(ask, subscriber.url("subscriber"), root)
        return publisher, subscriber

    return start


@pytest.fixture
def restart(site, ask, root):
    """Start a subscriber again on the state of the one before, or another on a state of its own."""

    def restart(state: str = "subscriber"):
        directory = str(site.directory / state)
        subscriber = site.start("subscriber", "--listen", "127.0.0.1:0", "--state", directory)
        wait_for_all(ask, subscriber.url("subscriber"), root)
        return subscriber

    return restart


@pytest.fixture
def in_tiers(site):
    """Start a publisher, a subscriber that is a tier, and one below it; the context has their URLs."""

    @contextmanager
    def in_tiers(root: Path) -> Iterator[dict[str, str]]:
        anywhere = ["--listen", "127.0.0.1:0", "--state"]
        below = site.start("broker", *anywhere, str(site.directory / "broker 2")).url("broker")
        site.environment["CATERVA2_SUBSCRIBER_REPUBLISH_TO"] = below
        _, publisher, subscriber = site.start_three(root)
        urls = {"publisher": publisher.url("publisher"), "subscriber": subscriber.url("subscriber")}
        del site.environment["CATERVA2_SUBSCRIBER_REPUBLISH_TO"]
        second = site.start("subscriber", "--broker", below, *anywhere, str(site.directory / "subscriber 2"))
        yield urls | {"second tier": second.url("subscriber")}

    return in_tiers


def wait_for_all(ask: Asker, url: str, root: Path) -> None:
    """Wait until a subscriber knows all that is published, from who publishes it."""
    names = {file.name for file in root.iterdir()}

    def known() -> bool:
        state = ask.json(f"{url}/api/roots").get("foo", {}).get("state")
        return state == "online" and set(ask.json(f"{url}/api/list/foo")) == names

    wait_until(known)


@pytest.fixture
def read_all_right(ask, root, arrays):
    """Read everything through a subscriber, by slices and whole, and compare it with what is published."""

    def read_all_right(url: str) -> None:
        for name, array in arrays.items():
            for plane in range(0, SHAPE[0], 5):
                np.testing.assert_array_equal(ask.part(url, name, str(plane)), array[plane])
            np.testing.assert_array_equal(ask.part(url, name), array)
        for file in root.iterdir():
            assert ask.stored(url, file.name) == file.read_bytes(), file.name

    return read_all_right


class Beside:
    """A subscriber with its HTTP face, beside a publisher that spoils answers, both in this process.

    Attributes
    ----------
    origin, publisher, subscriber
    url : str
        Of the subscriber.
    """

    def __init__(self, origin: MemoryOrigin, publisher: FaultyOrigin, subscriber: SubscriberService) -> None:
        self.origin = origin
        self.publisher = publisher
        self.subscriber = subscriber
        self.url = subscriber.address.url

    def announce(self, name: str) -> None:
        """Let the subscriber know the current version of a dataset, as a broker would."""
        path = DatasetPath("foo", name)
        self.subscriber.catalogue.apply("foo", name, self.origin.entry(path))

    @property
    def data_ranges(self) -> list[int]:
        """How many ranges each request for data had."""
        seen = [seen for seen in self.publisher.seen if seen.path.startswith("/data/")]
        return [(request.ranges or "").count("-") for request in seen]


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a publisher of some bytes, by name, and a subscriber beside it; no broker is there."""
    async with AsyncExitStack() as stack:

        async def start(published: dict[str, bytes], **settings: Any) -> Beside:
            origin = MemoryOrigin({DatasetPath("foo", name): data for name, data in published.items()})
            publisher = await stack.enter_async_context(FaultyOrigin(origin))
            own = SubscriberSettings(
                listen=Address("127.0.0.1", 0),
                state=tmp_path / "subscriber",
                broker="http://127.0.0.1:9",
                min_free_bytes=0,
                slices="never",  # to who is busy a publisher beside may seem far enough for slices
                **settings,
            )
            subscriber = await stack.enter_async_context(SubscriberService(own))
            subscriber.catalogue.set_root("foo", url=publisher.url)
            found = Beside(origin, publisher, subscriber)
            for name in published:
                found.announce(name)
            return found

        yield start
