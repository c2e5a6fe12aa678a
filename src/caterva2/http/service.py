"""What all services share: parts that start in order, run together, and stop in the reverse order."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Self

from caterva2.config import ServiceSettings
from caterva2.model.catalogue import Catalogue

__all__ = ["Service"]


class Service(ABC):
    """A part of the system that runs until it is left; an async context manager.

    Entering it returns when it serves, and raises what keeps it from that. A service can be entered once.

    Parameters
    ----------
    settings : ServiceSettings

    Attributes
    ----------
    address : Address
        Where it listens, once it is entered.
    catalogue : Catalogue
        What is published, as this service knows it.
    """

    name: ClassVar[str]
    """``broker``, ``publisher`` or ``subscriber``."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.address = settings.listen
        self.catalogue = Catalogue()
        self._stack = AsyncExitStack()
        self._failed: asyncio.Future[None]

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def wait(self) -> None:
        """Return never; raise when a part of the service failed for good."""
        await asyncio.shield(self._failed)

    async def settled(self) -> None:  # noqa: B027 - most services import nothing more
        """Return once what is imported behind the start is there."""

    @abstractmethod
    async def _start(self, stack: AsyncExitStack) -> None:
        """Start all parts, each with what undoes it on the stack."""

    def _spawn(self, stack: AsyncExitStack, run: Coroutine[Any, Any, None]) -> None:
        """Run a part until the stack is closed; if it fails before, so does the service."""
        task = asyncio.create_task(run)
        task.add_done_callback(self._on_done)

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # seen, also where nobody waits
