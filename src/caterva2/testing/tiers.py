"""A second tier: a root of one broker is announced at another, as a subscriber of the first serves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from caterva2.bus.announcer import Announcer
from caterva2.bus.catalogue import CatalogueView
from caterva2.bus.connection import Bus, ask_broker
from caterva2.model.catalogue import Catalogue
from caterva2.testing.waiting import until

__all__ = ["announce_again", "announcing_again"]


async def announce_again(first: str, second: str, root: str, *, url: str) -> None:
    """Announce a root of one broker at another, and every change of it, until cancelled.

    Subscribers of the second broker are a second tier then.

    Parameters
    ----------
    first, second : str
        URLs of the brokers.
    root : str
    url : str
        Of a subscriber of the first broker: where the second tier gets its bytes.

    Raises
    ------
    TimeoutError
        If the root is not there.
    """
    catalogue = Catalogue()
    async with (
        Bus(lambda: ask_broker(first, None)) as above,
        Bus(lambda: ask_broker(second, None)) as below,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(CatalogueView(above, catalogue).run())
        await until(lambda: root in catalogue.roots and catalogue.roots[root].fresh)
        group.create_task(Announcer(below, catalogue, {root: ""}, instance=f"tier of {url}", url=url).run())


@contextmanager
def announcing_again(first: str, second: str, root: str, *, url: str) -> Iterator[None]:
    """Run `announce_again` in a thread for as long as the context lasts; its failure is raised at the end."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(announce_again(first, second, root, url=url))
    failure: list[BaseException] = []

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name="tier")
    thread.start()
    try:
        yield
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
    if failure:
        raise failure[0]
