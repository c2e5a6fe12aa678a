"""Everybody dead, the subscriber back alone, then the others: what is cached is served throughout, marked."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from caterva2.frame.write import write_array
from caterva2.testing.waiting import wait_until

from .conftest import BLOCKS, CHUNKS, noise

REFUSED_S = 2.5
"""Two seconds, as promised, and what a busy machine adds."""


def confirmed_at(state: Path) -> float | None:
    """Return what a subscriber will know, after a crash, of when the root was last confirmed."""
    with closing(sqlite3.connect(f"file:{state / 'subscriber.sqlite'}?mode=ro", uri=True)) as database:
        return database.execute("SELECT confirmed_at FROM roots").fetchone()[0]


@pytest.mark.parametrize("gone", ["for a while", "and changed meanwhile"])
def test_all_dead_and_back(site, start, ask, root, arrays, gone) -> None:
    url = start()[1].url("subscriber")
    (whole, part, cold, *_) = arrays
    ask.part(url, whole)
    ask.part(url, part, "3")
    wait_until(lambda: confirmed_at(site.directory / "subscriber") is not None)
    at = url.removeprefix("http://")
    for process in site.processes:
        process.kill()

    site.start("subscriber", "--listen", at, "--state", str(site.directory / "subscriber")).url("subscriber")
    for name, selection, expected in ((whole, "", arrays[whole]), (part, "3", arrays[part][3])):
        np.testing.assert_array_equal(ask.part(url, name, selection), expected)
    assert len(ask.json(f"{url}/api/list/foo")) == len(arrays) + 1
    info = ask.json(f"{url}/api/info/foo/{whole}")
    assert (info["freshness"], info["shape"]) == ("unverified", list(arrays[whole].shape))
    assert 0 < info["age_s"] < 60
    began = time.perf_counter()
    answer = ask.get(f"{url}/api/fetch/foo/{cold}?slice_=0,0,0")
    refused_s = time.perf_counter() - began
    assert (answer.status, answer.json()["type"]) == (503, "urn:caterva2:problem:unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert refused_s < REFUSED_S

    if gone == "and changed meanwhile":
        arrays[part] = noise(77)
        write_array(root / part, arrays[part], chunks=CHUNKS, blocks=BLOCKS)
    listen = site.environment["CATERVA2_BROKER"].removeprefix("http://")
    site.start("broker", "--listen", listen, "--state", str(site.directory / "broker")).url("broker")
    state = str(site.directory / "publisher")
    site.start("publisher", "foo", str(root), "--listen", "127.0.0.1:0", "--state", state).url("publisher")
    began = time.perf_counter()
    wait_until(lambda: ask.json(f"{url}/api/info/foo/{whole}")["freshness"] == "fresh")
    print(
        f"refused after {refused_s:.3f} s; fresh {time.perf_counter() - began:.2f} s after the last was back"
    )
    # What did not change needs nobody
    np.testing.assert_array_equal(ask.part(url, whole), arrays[whole])
    if gone == "for a while":
        np.testing.assert_array_equal(ask.part(url, part, "3"), arrays[part][3])
    assert ask.metric(url, "caterva2_subscriber_upstream_requests_total") == 0
    wait_until(lambda: np.array_equal(ask.part(url, part, "3"), arrays[part][3]))
    np.testing.assert_array_equal(ask.part(url, cold), arrays[cold])
