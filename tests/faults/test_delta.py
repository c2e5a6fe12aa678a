"""After a change only what changed is moved, and what is served is the new version."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import blosc2
import numpy as np
import pytest

from caterva2.testing.waiting import wait_until

NAME = "large.b2nd"
SHAPE, CHUNKS, BLOCKS = (24, 512, 1024), (4, 256, 512), (2, 64, 256)
CHUNK_BYTES = 4 * 256 * 512 * 2
"""Noise: a chunk of it does not compress. There are 24 of them, 25 MB in all."""

SLACK_BYTES = 200_000


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 16, shape, np.uint16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    blosc2.asarray(noise(SHAPE, 1), chunks=CHUNKS, blocks=BLOCKS, urlpath=str(directory / NAME))
    return directory


class Followed:
    """A subscriber that has all of the array, and follows it."""

    def __init__(self, ask, url: str, root: Path) -> None:
        self.ask, self.url, self.file = ask, url, root / NAME

    def row(self) -> dict:
        (row,) = self.ask.json(f"{self.url}/api/followed")["datasets"]
        return row

    def counts(self) -> np.ndarray:
        names = ("upstream_bytes_total", "cache_taken_over_bytes_total")
        return np.array([self.ask.metric(self.url, f"caterva2_subscriber_{name}") for name in names])

    def after(self, change) -> tuple[int, int]:
        """Change the file, wait until the new version is all here; return bytes moved and taken over."""
        before, etag = self.counts(), self.row()["etag"]
        change(self.file)
        wait_until(lambda: self.row()["etag"] != etag and self.row()["complete"])
        moved, taken_over = (self.counts() - before).tolist()
        assert self.ask.stored(self.url, NAME) == self.file.read_bytes()
        counts = self.counts()
        values = self.ask.part(self.url, NAME)
        np.testing.assert_array_equal(values, blosc2.open(str(self.file), mode="r")[:])
        assert (self.counts() == counts).all(), "all of it is here"
        return moved, taken_over


@pytest.fixture
def followed(start, ask, root) -> Followed:
    _, subscriber = start()
    url = subscriber.url("subscriber")
    assert ask._pool.request("POST", f"{url}/api/follow/foo?mode=full").status == 200
    followed = Followed(ask, url, root)
    wait_until(lambda: followed.row()["complete"])
    return followed


def update(file: Path, chunk: int, seed: int) -> None:
    array = blosc2.open(str(file), mode="a")
    array[4 * chunk : 4 * chunk + 4, :256, :512] = noise((4, 256, 512), seed)


def append(file: Path) -> None:
    array = blosc2.open(str(file), mode="a")
    array.resize((28, *SHAPE[1:]))
    array[24:] = noise((4, *SHAPE[1:]), 9)


def set_attribute(file: Path) -> None:
    array = blosc2.open(str(file), mode="a")
    array.schunk.vlmeta["unit"] = "K"


def replace_by_copy(file: Path) -> None:
    shutil.copyfile(file, copy := file.with_suffix(".tmp"))
    copy.replace(file)


def shift(file: Path) -> None:
    """Write the array anew with another chunk before all others: each has another number and place."""
    values = np.concatenate([noise((4, *SHAPE[1:]), 7), blosc2.open(str(file), mode="r")[:]])
    copy = file.with_suffix(".tmp")
    blosc2.asarray(values, chunks=CHUNKS, blocks=BLOCKS, urlpath=str(copy))
    copy.replace(file)


CHANGES = {
    "touched": (os.utime, 0),
    "an attribute": (set_attribute, 0),
    "a chunk": (lambda file: update(file, 2, 3), CHUNK_BYTES),
    "appended": (append, 4 * CHUNK_BYTES),
    "replaced by a copy": (replace_by_copy, 0),
    "shifted": (shift, 4 * CHUNK_BYTES),
}


def test_only_what_changed_is_moved(followed) -> None:
    for what, (change, changed) in CHANGES.items():
        moved, taken_over = followed.after(change)
        print(f"{what}: {moved:,} bytes moved for {changed:,} changed; {taken_over:,} were here")
        assert moved <= 1.2 * changed + SLACK_BYTES, what
        assert moved + taken_over >= followed.file.stat().st_size


def test_each_link_moves_only_what_changed(in_tiers, ask, root) -> None:
    """A subscriber of a subscriber follows; the one between is asked by nobody else."""
    with in_tiers(root) as urls:
        first, second = (Followed(ask, urls[name], root) for name in ("subscriber", "second tier"))
        wait_until(lambda: "foo" in ask.json(f"{second.url}/api/roots"))
        assert ask._pool.request("POST", f"{second.url}/api/follow/foo?mode=full").status == 200
        wait_until(lambda: second.ask.json(f"{second.url}/api/followed")["datasets"])
        wait_until(lambda: second.row()["complete"])
        for what in ("touched", "a chunk", "appended"):
            change, changed = CHANGES[what]
            before = first.counts()
            moved, _ = second.after(change)
            between, _ = (first.counts() - before).tolist()
            print(f"{what}: {between:,} bytes to the first, {moved:,} to the second, {changed:,} changed")
            for link in (between, moved):
                assert link <= 1.2 * changed + SLACK_BYTES, what


def test_what_is_not_followed_moves_when_it_is_read(start, ask, root) -> None:
    _, subscriber = start()
    url = subscriber.url("subscriber")
    followed = Followed(ask, url, root)
    ask.part(url, NAME)
    before = followed.counts()
    etag = ask.json(f"{url}/api/info/foo/{NAME}")["etag"]
    update(root / NAME, 2, 3)
    wait_until(lambda: ask.json(f"{url}/api/catalogue/foo")["rows"][0]["etag"] != etag)
    assert (followed.counts() == before).all(), "nobody asked for anything"
    np.testing.assert_array_equal(ask.part(url, NAME), blosc2.open(str(root / NAME), mode="r")[:])
    moved, taken_over = (followed.counts() - before).tolist()
    assert moved <= 1.2 * CHUNK_BYTES + SLACK_BYTES
    assert taken_over > 20 * CHUNK_BYTES
