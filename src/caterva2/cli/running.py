"""Running services until they are asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from json import dumps
from typing import Any

from caterva2.cli.process import allow_many_files, collect_seldom, return_memory_soon, take_turns_often
from caterva2.http.service import Service

__all__ = ["Make", "run_services"]

Make = Callable[[dict[str, Service]], tuple[Service, str]]
"""Makes a service, knowing those that run already by name; with what to call it to the user."""


def run_services(makes: Sequence[Make], *, json: bool = False) -> None:
    """Start services in order, run them until SIGINT or SIGTERM, stop them in the reverse order.

    A second signal ends the process at once.

    Parameters
    ----------
    makes : sequence of callable
    json : bool
        Say on stdout as well where each listens, as a line of JSON.

    Raises
    ------
    Caterva2Error, OSError
        What kept a service from starting, or made it fail later.
    """
    allow_many_files()
    return_memory_soon()
    collect_seldom()
    take_turns_often()
    _event_loop_runner()(_run(makes, json=json))


def _event_loop_runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run
    return uvloop.run


async def _run(makes: Sequence[Make], *, json: bool) -> None:
    stop = asyncio.Event()
    _on_signals(stop)
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(_start(makes, stack, json=json))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        running = [asyncio.create_task(service.wait()) for service in starting.result()]
        settling = asyncio.create_task(_settle(starting.result()))
        await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in [*running, stopping, settling]:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
        if not stop.is_set():
            raise next(error for error in ended if isinstance(error, Exception))
        print("stopping", file=sys.stderr, flush=True)


async def _settle(services: Sequence[Service]) -> None:
    """Leave what was imported out of the search for cycles: first readers waited for it, for 40 ms."""
    for service in services:
        await service.settled()
    collect_seldom()


async def _start(makes: Sequence[Make], stack: AsyncExitStack, *, json: bool) -> list[Service]:
    services: dict[str, Service] = {}
    for make in makes:
        service, what = make(services)
        services[service.name] = await stack.enter_async_context(service)
        print(f"{what} listening on {service.address.url}", file=sys.stderr, flush=True)
        if json:
            print(dumps({"service": service.name, "url": service.address.url}), flush=True)
    return list(services.values())


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, on_signal)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(on_signal))
