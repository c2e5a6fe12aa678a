"""Parts of arrays as other services ask for them."""

import numpy as np
import pytest

from caterva2.frame.made import read_chunk_into
from caterva2.source.maker import CHUNK_TYPE, check_digest

from .conftest import ARRAY

A = "foo/dir/a.b2nd"

WANTED = {"Accept": f"{CHUNK_TYPE};level=2", "Want-Content-Digest": "sha-256=1"}


async def test_a_part_has_its_own_digest(running) -> None:
    status, headers, body = await running.get(f"/api/fetch/{A}?slice_=3:9,::-2", headers=WANTED)
    assert (status, headers["Content-Type"]) == (200, CHUNK_TYPE)
    check_digest(headers["Content-Digest"], body, None, "")
    out = np.empty(ARRAY[3:9, ::-2].shape, ARRAY.dtype)
    read_chunk_into(body, out)
    np.testing.assert_array_equal(out, ARRAY[3:9, ::-2])


@pytest.mark.parametrize("accept", [CHUNK_TYPE, f"{CHUNK_TYPE};level=9", f"{CHUNK_TYPE}; level=0"])
async def test_any_level(running, accept) -> None:
    status, headers, body = await running.get(f"/api/fetch/{A}?slice_=3", headers={"Accept": accept})
    assert status == 200
    assert "Content-Digest" not in headers
    out = np.empty(ARRAY[3].shape, ARRAY.dtype)
    read_chunk_into(body, out)
    np.testing.assert_array_equal(out, ARRAY[3])


async def test_an_empty_part(running) -> None:
    status, _, body = await running.get(f"/api/fetch/{A}?slice_=3:3", headers=WANTED)
    assert (status, body) == (200, b"")


async def test_only_slices(running) -> None:
    assert (await running.get(f"/api/fetch/{A}?indices=[[1],[2]]", headers=WANTED))[0] == 400


async def test_answers_say_how_they_were_had(running) -> None:
    _, headers, _ = await running.get(f"/api/fetch/{A}?slice_=3")
    assert headers["Server-Timing"] == "cache;desc=hit"
