"""A broker, a publisher and a subscriber in this process, on free ports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from caterva2.broker.service import BrokerService
from caterva2.config import Address, BrokerSettings, PublisherSettings, SubscriberSettings, Token
from caterva2.publisher.service import PublisherService
from caterva2.subscriber.service import SubscriberService
from caterva2.testing.waiting import until

__all__ = ["Cluster", "running_cluster"]

ANY_PORT = Address("127.0.0.1", 0)

T = TypeVar("T")


class Cluster:
    """The three services, real ones, on loopback; an async context manager.

    Parameters
    ----------
    state : Path
        Directory for the state of all three; a second cluster on it is a restart.
    roots : mapping of str to Path
        Directories to publish, by root.
    token : Token, optional
    settle_s : float
        How long a file must be quiet before the publisher takes it, in seconds.

    Attributes
    ----------
    broker, publisher, subscriber
        The services, each of which can be stopped and started on its own.
    """

    def __init__(
        self, state: Path, roots: Mapping[str, Path], *, token: Token | None = None, settle_s: float = 0.05
    ) -> None:
        self.state = state
        self.roots = dict(roots)
        self.token = token
        self.settle_s = settle_s
        self._stacks: dict[str, AsyncExitStack] = {}
        self.broker: BrokerService
        self.publisher: PublisherService
        self.subscriber: SubscriberService

    async def __aenter__(self) -> Self:
        try:
            await self.start_broker()
            await self.start_publisher()
            await self.start_subscriber()
            await until(self._in_sync)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for name in ("subscriber", "publisher", "broker"):
            await self.stop(name)

    async def start_broker(self, listen: Address = ANY_PORT) -> None:
        """Start the broker."""
        settings = BrokerSettings(listen=listen, state=self.state / "broker", token=self.token)
        self.broker = await self._enter("broker", BrokerService(settings))

    async def start_publisher(self, listen: Address = ANY_PORT) -> None:
        """Start the publisher."""
        settings = PublisherSettings(
            listen=listen,
            state=self.state / "publisher",
            token=self.token,
            broker=self.broker.address.url,
            settle_s=self.settle_s,
        )
        self.publisher = await self._enter("publisher", PublisherService(settings, self.roots))

    async def start_subscriber(self, listen: Address = ANY_PORT) -> None:
        """Start the subscriber."""
        settings = SubscriberSettings(
            listen=listen,
            state=self.state / "subscriber",
            token=self.token,
            broker=self.broker.address.url,
            slices="never",  # a publisher here may seem far away while the machine is busy
        )
        self.subscriber = await self._enter("subscriber", SubscriberService(settings))

    async def stop(self, name: str) -> None:
        """Stop one of ``broker``, ``publisher``, ``subscriber``, if it runs."""
        stack = self._stacks.pop(name, None)
        if stack is not None:
            await stack.aclose()

    def _in_sync(self) -> bool:
        mine, theirs = self.publisher.catalogue.roots, self.subscriber.catalogue.roots
        return self.publisher.scanned and all(
            name in theirs and theirs[name].digest == root.digest and theirs[name].fresh
            for name, root in mine.items()
        )

    async def _enter(self, name: str, service: Any) -> Any:  # Any: one of three services
        stack = AsyncExitStack()
        await stack.enter_async_context(service)
        self._stacks[name] = stack
        return service


class RunningCluster:
    """A `Cluster` on an event loop of its own thread, for callers that are not asynchronous."""

    def __init__(self, cluster: Cluster, loop: asyncio.AbstractEventLoop) -> None:
        self.cluster = cluster
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the cluster's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until a condition holds; it is looked at on the cluster's loop."""
        self.run(until(condition, timeout_s))

    @property
    def url(self) -> str:
        """URL of the subscriber."""
        return self.cluster.subscriber.address.url


@contextmanager
def running_cluster(cluster: Cluster) -> Iterator[RunningCluster]:
    """Run a cluster in a thread for as long as the context lasts."""
    started = threading.Event()
    failure: list[BaseException] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        try:
            async with cluster:
                started.set()
                await stop.wait()
        except BaseException as error:  # handed to the caller's thread
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), name="cluster")
    thread.start()
    started.wait()
    try:
        if not failure:
            yield RunningCluster(cluster, loop)
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
    if failure:
        raise failure[0]
