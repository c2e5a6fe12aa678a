"""Downloads through real processes that die in the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caterva2
from caterva2.errors import Unavailable
from caterva2.testing.waiting import wait_until

SIZE = 120_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "large.bin").write_bytes(np.random.default_rng(0).bytes(SIZE))
    return tmp_path / "root"


def state_of(site) -> str:
    roots = site.json("roots")
    return roots[0]["state"] if roots and roots[0]["datasets"] else "missing"


@pytest.mark.parametrize("who", ["publisher", "subscriber"])
def test_a_download_goes_on_after_a_kill(site, root, who) -> None:
    _, publisher, subscriber = site.start_three(root)
    wait_until(lambda: state_of(site) == "online", 30)
    victim = publisher if who == "publisher" else subscriber
    address = victim.url(who).removeprefix("http://")

    def kill_in_the_middle(done: int, total: int) -> None:
        if done > total // 10 and victim.popen.poll() is None:
            victim.kill()

    with caterva2.connect(site.environment["CATERVA2_SUBSCRIBER"]) as client:
        with pytest.raises(Unavailable):
            client.download("foo/large.bin", site.directory / "copies", kill_in_the_middle)
        assert not (site.directory / "copies" / "large.bin").exists()
        roots = ["foo", str(root)] if who == "publisher" else []
        site.start(who, *roots, "--listen", address, "--state", str(site.directory / who)).url(who)
        wait_until(lambda: state_of(site) == "online", 30)
        record = client.download("foo/large.bin", site.directory / "copies")
    assert Path(record.file).read_bytes() == (root / "large.bin").read_bytes()
    assert record.bytes == SIZE
    assert record.fetched_bytes < SIZE, "it began anew"
