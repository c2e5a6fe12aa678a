"""What becomes of a process once its services run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from caterva2.cli.running import _settle


class Late:
    """A service that has something to import behind its start."""

    def __init__(self) -> None:
        self.imported = asyncio.Event()

    async def settled(self) -> None:
        await self.imported.wait()


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def test_what_is_imported_behind_the_start_is_left_out_of_collections_too(collector) -> None:
    service, before = Late(), gc.get_freeze_count()
    settling = asyncio.create_task(_settle([service]))
    await asyncio.sleep(0)
    assert gc.get_freeze_count() == before
    service.imported.set()
    await settling
    assert gc.get_freeze_count() > before
