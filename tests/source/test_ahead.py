"""Pages that are made before they are asked for."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.source.shelf import Shelf

from caterva2.frame.write import write_array
from caterva2.source.ahead import FOLLOWING
from caterva2.source.local import LocalSource
from caterva2.testing.waiting import until


@pytest.fixture
def shelf(tmp_path):
    directory = tmp_path / "root"
    directory.mkdir()
    return Shelf(directory)


@pytest.fixture
async def source(shelf):
    with ThreadPoolExecutor(2) as executor:
        source = LocalSource(shelf, executor)
        yield source
        await source.close()


@pytest.fixture
async def head(shelf, source):
    """Of a dataset of ten pages."""
    write_array(shelf.directory / "many.b2nd", np.zeros(10_240, np.int8) + 1, chunks=(1,))
    head = await source.head(shelf.publish("many.b2nd"))
    assert head.npages == 10
    return head


async def test_the_pages_behind_one_that_is_asked_for_are_made_too(source, head) -> None:
    await source.pages(head, [8])
    await until(lambda: source.stats.pages_made == 1 + FOLLOWING)
    before = source.stats.pages_made
    await source.pages(head, [9, 0, 1])
    assert source.stats.pages_made == before


async def test_a_reader_of_pages_that_are_made_has_no_others_made(source, head) -> None:
    await source.pages(head, [0])
    await until(lambda: source.stats.pages_made == 1 + FOLLOWING)
    await source.pages(head, [3])
    await source.pages(head, [6])
    await until(lambda: source.stats.pages_made == 2 * (1 + FOLLOWING))
    await source.pages(head, list(range(10)))
    assert source.stats.pages_made == head.npages


async def test_a_version_that_goes_meanwhile_disturbs_nobody(source, shelf, head) -> None:
    (shelf.directory / "other").write_bytes(random.Random(1).randbytes(1000))
    other = await source.head(shelf.publish("other"))
    await source.pages(head, [0])
    del shelf.versions[head.path]
    await source.pages(other, [0])
    assert source.stats.pages_made >= 2
