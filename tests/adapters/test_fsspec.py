"""The file system: what is published as files, at one version each, and no more of them than is read."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.asyn import sync

from caterva2.adapters.fsspec import Caterva2FileSystem
from caterva2.adapters.fsspec_file import ChangedFile
from caterva2.adapters.fsspec_pages import MOST_PAGES, PAGE_BYTES, PageCache
from caterva2.errors import Changed, InvalidPath, NotFound, Unavailable
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster

BYTES = random.Random(7).randbytes(3_000_000)
NAMES = ["dir/sub/deep", "dir/sub2", "dir/x", "dir.txt", "é #?%&+.bin", "z"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("root")
    for name in NAMES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(name.encode())
    (directory / "nothing").write_bytes(b"")
    (directory / "large").write_bytes(BYTES)
    write_array(directory / "a.b2nd", np.arange(1000))
    return directory


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory) -> Iterator[RunningCluster]:
    empty = tmp_path_factory.mktemp("empty")
    cluster = Cluster(tmp_path_factory.mktemp("state"), {"foo": root, "none": empty})
    with running_cluster(cluster) as running:
        yield running


@pytest.fixture
def url(running) -> str:
    return running.url.replace("http", "caterva2")


@pytest.fixture
def fs(running) -> Caterva2FileSystem:
    return fsspec.filesystem("caterva2", subscriber=running.url)


# -- what is there ---------------------------------------------------------------------------------


def test_roots_and_directories_are_listed(fs) -> None:
    assert fs.ls("", detail=False) == ["foo", "none"]
    assert sorted(fs.ls("foo", detail=False)) == sorted(
        ["foo/a.b2nd", "foo/dir", "foo/dir.txt", "foo/large", "foo/nothing", "foo/z", "foo/é #?%&+.bin"]
    )
    assert fs.ls("foo/dir/", detail=False) == ["foo/dir/sub", "foo/dir/sub2", "foo/dir/x"]
    assert fs.ls("none") == []
    (one,) = fs.ls("foo/dir/x")
    assert one == fs.info("foo/dir/x")
    for path in ("no", "foo/no", "foo/di", "foo/dir/x/y", "foo//x", "../x"):
        with pytest.raises(FileNotFoundError):
            fs.ls(path)


def test_a_directory_with_much_below_is_jumped_over(running, fs, root, monkeypatch) -> None:
    monkeypatch.setattr("caterva2.client.protocol.PAGE_ROWS", 2)
    pages = []
    page = fs._client.page

    async def counted(name, after="", limit=2):
        pages.append(after)
        return await page(name, after, limit)

    monkeypatch.setattr(fs._client, "page", counted)
    for n in range(20):
        (root / "much" / "deep").mkdir(parents=True, exist_ok=True)
        (root / "much" / "deep" / str(n)).touch()
    (root / "much" / "last").touch()
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: sum(name.startswith("much/") for name in entries) == 21)
    assert fs.ls("foo/much", detail=False) == ["foo/much/deep", "foo/much/last"]
    assert len(pages) == 2
    assert len(fs.find("foo/much")) == 21


def test_what_is_said_of_a_file(fs, root) -> None:
    info = fs.info("foo/dir/x")
    stat = (root / "dir" / "x").stat()
    assert (info["name"], info["size"], info["type"], info["kind"]) == ("foo/dir/x", 5, "file", "file")
    assert fs.modified("foo/dir/x").timestamp() == pytest.approx(stat.st_mtime, abs=1e-5)
    assert fs.created("foo/dir/x") == fs.modified("foo/dir/x")
    assert fs.ukey("foo/dir/x") == info["etag"]
    assert fs.size("foo/large") == len(BYTES)
    assert fs.info("foo/a.b2nd")["kind"] == "array"
    assert fs.info("foo/dir") == {"name": "foo/dir", "size": 0, "type": "directory"}
    for path in ("", "foo", "none", "foo/dir", "foo/dir/sub"):
        assert fs.isdir(path)
        assert not fs.isfile(path)
        assert fs.exists(path)
    assert fs.isfile("foo/dir.txt")
    for path in ("foo/no", "foo/dir/su", "no", "no/x", "foo//z", "foo/../z", "foo/z/z"):
        assert not fs.exists(path)


def test_one_file_of_many_is_found_without_a_listing(fs, monkeypatch) -> None:
    limits = []
    page = fs._client.page

    async def seen(root, after="", limit=1000):
        limits.append(limit)
        return await page(root, after, limit)

    monkeypatch.setattr(fs._client, "page", seen)
    fs.info("foo/z")
    fs.info("foo/dir")
    assert limits == [1, 1, 1]


def test_walking_finding_and_globs(fs) -> None:
    everything = sorted(f"foo/{name}" for name in [*NAMES, "nothing", "large", "a.b2nd"])
    found = [path for path in fs.find("foo") if "much" not in path]
    assert sorted(found) == everything
    assert set(fs.find("")) >= set(everything)
    assert fs.find("foo/dir", maxdepth=1) == ["foo/dir/sub2", "foo/dir/x"]
    assert fs.find("foo/dir", withdirs=True)[:2] == ["foo/dir", "foo/dir/sub"]
    assert fs.find("foo/z") == ["foo/z"]
    assert fs.find("foo/no") == fs.find("no") == []
    assert list(fs.find("foo/dir", detail=True)) == ["foo/dir/sub/deep", "foo/dir/sub2", "foo/dir/x"]
    assert fs.glob("foo/dir/*") == ["foo/dir/sub", "foo/dir/sub2", "foo/dir/x"]
    assert fs.glob("foo/d*/**/deep") == ["foo/dir/sub/deep"]
    assert fs.du("foo/dir") == sum(len(name) for name in NAMES if name.startswith("dir/"))
    assert [path for path, _, _ in fs.walk("foo/dir")] == ["foo/dir", "foo/dir/sub"]


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        (0, 10),
        (5, None),
        (-7, None),
        (-7, -2),
        (3, -3),
        (9, 4),
        (2_999_990, 4_000_000),
        (5_000_000, None),
    ],
)
def test_parts_of_files(fs, start, end) -> None:
    assert fs.cat_file("foo/large", start, end) == BYTES[start:end]


def test_several_files_and_several_parts(fs) -> None:
    assert fs.cat(["foo/z", "foo/dir/x"]) == {"foo/z": b"z", "foo/dir/x": b"dir/x"}
    assert fs.cat_ranges(["foo/large"] * 3, [0, 10, -5], [3, 1_000_000, None]) == [
        BYTES[:3],
        BYTES[10:1_000_000],
        BYTES[-5:],
    ]
    assert fs.cat_ranges(["foo/large", "foo/z"], 0, 1) == [BYTES[:1], b"z"]
    failed = fs.cat_ranges(["foo/no", "foo/z"], 0, 1)
    assert isinstance(failed[0], NotFound)
    with pytest.raises(NotFound):
        fs.cat_ranges(["foo/no", "foo/no", "foo/z"], 0, 1, on_error="raise")
    assert fs.cat_file("foo/nothing") == fs.head("foo/nothing", 3) == b""
    assert fs.tail("foo/large", 4) == BYTES[-4:]
    for path in ("foo/no", "foo/dir", "foo", "no", "foo//z"):
        with pytest.raises(FileNotFoundError):
            fs.cat_file(path)


def test_files_are_opened_by_their_url(url, fs) -> None:
    with fsspec.open(f"{url}/foo/%C3%A9%20%23%3F%25%26%2B.bin") as file:
        assert file.read().decode() == "é #?%&+.bin"
    with fsspec.open(f"{url}/foo/dir/x", "rt") as file:
        assert file.read() == "dir/x"
    with fsspec.open(f"simplecache::{url}/foo/dir/x") as file:
        assert file.read() == b"dir/x"
    assert fs.unstrip_protocol("foo/é #?%&+.bin") == f"{url}/foo/%C3%A9%20%23%3F%25%26%2B.bin"
    for path in fs.find("foo/dir"):
        again, same = fsspec.url_to_fs(fs.unstrip_protocol(path))
        assert (again, same) == (fs, path)
    assert [file.path for file in fsspec.open_files(f"{url}/foo/dir/*2")] == ["foo/dir/sub2"]
    with pytest.raises(InvalidPath):
        fsspec.url_to_fs("caterva2://user:password@host/foo/x")


def test_the_configured_subscriber_is_the_default(running, monkeypatch) -> None:
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", running.url)
    with fsspec.open("caterva2:///foo/z") as file:
        assert file.read() == b"z"
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", "http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        fsspec.open("caterva2:///foo/z").open()


def test_files_over_tls_and_other_ports() -> None:
    fs, path = fsspec.url_to_fs("caterva2s://host/foo/x")
    assert (fs.subscriber, path) == ("https://host", "foo/x")
    assert fs.unstrip_protocol(path) == "caterva2s://host/foo/x"
    fs = fsspec.filesystem("caterva2", subscriber="http://host")
    assert fs.unstrip_protocol(path) == "caterva2://host:80/foo/x"
    fs = fsspec.filesystem("caterva2", subscriber="https://host/prefix")
    assert fs.unstrip_protocol(path) == "caterva2:///foo/x"


def test_an_open_file_is_read_as_any_other(fs) -> None:
    with fs.open("foo/large") as file:
        random_ = random.Random(3)
        for _ in range(100):
            start, size = random_.randrange(len(BYTES)), random_.choice([1, 100, 70_000, 600_000])
            assert file.seek(start) == start
            assert file.read(size) == BYTES[start : start + size]
        file.seek(0)
        assert file.read() == BYTES
        assert file.seek(-3, os.SEEK_END) == len(BYTES) - 3
        assert file.read() == BYTES[-3:]
    with fs.open("foo/nothing") as file:
        assert file.read() == b""
    for path, error in (("foo/no", FileNotFoundError), ("foo/dir", IsADirectoryError)):
        with pytest.raises(error):
            fs.open(path)


def test_a_file_is_saved(fs, root, tmp_path) -> None:
    fs.get("foo/dir", str(tmp_path / "here"), recursive=True)
    assert (tmp_path / "here" / "sub" / "deep").read_bytes() == b"dir/sub/deep"
    (tmp_path / "l.part").write_bytes(BYTES[:1000])
    fs.get("foo/large", str(tmp_path / "l"))
    assert (tmp_path / "l").read_bytes() == BYTES
    assert (tmp_path / "l").stat().st_mtime_ns == (root / "large").stat().st_mtime_ns
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "l"]


# -- one version -----------------------------------------------------------------------------------


def test_an_open_file_never_mixes_versions(running, url, root, fs) -> None:
    file = root / "changing"
    file.write_bytes(b"a" * 2_000_000)
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: "changing" in entries)
    opened = fs.open("foo/changing")
    pinned = f"{url}/foo/changing?version={opened.etag}"
    assert opened.read(10) == b"a" * 10
    with fsspec.open(pinned) as other:
        assert other.read(3) == b"aaa"
    file.write_bytes(b"b" * 1_500_000)
    running.wait_for(lambda: entries["changing"].etag != opened.etag)
    opened.seek(1_000_000)
    with pytest.raises(OSError, match="open it anew") as raised:
        opened.read(10)
    assert isinstance(raised.value, Changed)
    assert (raised.value.errno, raised.value.wanted_etag) == (errno.ESTALE, opened.etag)
    with pytest.raises(ChangedFile):
        pickle.loads(pickle.dumps(opened))
    pinned_fs, path = fsspec.url_to_fs(pinned)
    with pytest.raises(ChangedFile):
        pinned_fs.cat_file(path, 1_000_000, 1_000_010)
    with pytest.raises(ChangedFile):
        pinned_fs.info(path)
    assert fs.cat_file("foo/changing", 0, 2) == b"bb"
    with fs.open("foo/changing") as again:
        assert again.read() == b"b" * 1_500_000


# -- manners ---------------------------------------------------------------------------------------


def test_it_pickles_by_url_and_without_its_token(running) -> None:
    fs = fsspec.filesystem("caterva2", subscriber=running.url, token="a-secret", timeout_s=7)
    for text in (repr(fs), str(fs), fs.to_json(), str(fs.storage_options), repr(pickle.dumps(fs))):
        assert "secret" not in text
    again = pickle.loads(pickle.dumps(fs))
    assert again.subscriber == running.url
    assert again._client._transport.timeout_s == 7
    assert again.cat_file("foo/z") == b"z"
    file = pickle.loads(pickle.dumps(again.open("foo/large")))
    assert file.read(5) == BYTES[:5]
    file.seek(1000)
    assert pickle.loads(pickle.dumps(file)).read(5) == BYTES[1000:1005]
    assert fsspec.AbstractFileSystem.from_json(fs.to_json()).subscriber == running.url


def test_nothing_is_written(fs, tmp_path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    for write in (
        lambda: fs.open("foo/z", "wb"),
        lambda: fs.open("foo/z", "ab"),
        lambda: fs.pipe_file("foo/z", b"x"),
        lambda: fs.pipe({"foo/z": b"x"}),
        lambda: fs.put(str(tmp_path / "x"), "foo/z"),
        lambda: fs.put_file(str(tmp_path / "x"), "foo/z"),
        lambda: fs.rm("foo/z"),
        lambda: fs.rm_file("foo/z"),
        lambda: fs.rm("foo/dir", recursive=True),
        lambda: fs.cp_file("foo/z", "foo/y"),
        lambda: fs.copy("foo/z", "foo/y"),
        lambda: fs.mv("foo/z", "foo/y"),
        lambda: fs.mkdir("foo/new"),
        lambda: fs.makedirs("foo/new/er"),
        lambda: fs.rmdir("foo/dir"),
        lambda: fs.touch("foo/z"),
    ):
        with pytest.raises(OSError, match="read-only") as raised:
            write()
        assert raised.value.errno == errno.EROFS
    assert fs.cat_file("foo/z") == b"z"


async def test_it_is_used_on_an_event_loop(running) -> None:
    fs = Caterva2FileSystem(running.url, asynchronous=True, skip_instance_cache=True)
    assert await fs._cat_file("foo/z") == b"z"
    parts = await fs._cat_ranges(["foo/large"] * 50, list(range(50)), list(range(1, 51)))
    assert b"".join(parts) == BYTES[:50]
    await fs._client.close()


def test_it_is_used_on_one_event_loop_after_the_other(running) -> None:
    """In a process of its own: asyncio warns of connections whose loop has ended before they were closed."""
    code = f"""if True:
        import asyncio
        from caterva2.adapters.fsspec import Caterva2FileSystem
        fs = Caterva2FileSystem({running.url!r}, asynchronous=True)
        for _ in range(3):
            assert asyncio.run(fs._cat_file("foo/z")) == b"z"
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_the_end_of_a_process_says_nothing(running) -> None:
    code = f"""if True:
        import fsspec, zarr
        from caterva2.adapters.zarr import Caterva2Store
        assert fsspec.open("{running.url.replace("http", "caterva2")}/foo/z").open().read() == b"z"
        store = Caterva2Store("{running.url}/data/foo")
        assert zarr.open_array(store, path="a.b2nd", mode="r")[7] == 7
    """
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_who_is_not_used_any_more_is_closed(running) -> None:
    fs = Caterva2FileSystem(running.url, skip_instance_cache=True)
    assert fs.cat_file("foo/z") == b"z"
    session, loop = fs._client._transport._session, fs.loop
    del fs
    gc.collect()
    assert session.closed
    sync(loop, asyncio.sleep, 0)


# -- pages -----------------------------------------------------------------------------------------


def asked(reads, size=100 * PAGE_BYTES):
    """Return which pages some reads ask for."""
    requests = []

    def fetch(start, stop):
        requests.append((start // PAGE_BYTES, -(-stop // PAGE_BYTES)))
        return bytes(stop - start)

    pages = PageCache(PAGE_BYTES, fetch, size)
    for start, stop in reads:
        assert len(pages._fetch(start, stop)) == min(stop, size) - start
    return requests


def test_whole_pages_are_asked_for_and_kept() -> None:
    page = PAGE_BYTES
    assert asked([(5, 10), (page - 5, page), (100, 3 * page)]) == [(0, 1), (1, 3)]
    assert asked([(3 * page, 4 * page), (page, 6 * page)]) == [(3, 4), (1, 3), (4, 6)]
    assert asked([(10, 20), (50 * page, 50 * page + 1), (0, 5)]) == [(0, 1), (50, 51)]
    assert asked([(0, 10)], size=7) == [(0, 1)]


def test_what_is_read_on_and_on_is_read_ahead() -> None:
    reads = [(n * 1000, (n + 1) * 1000) for n in range(100 * PAGE_BYTES // 1000)]
    requests = asked(reads)
    assert requests[0] == (0, 1)
    assert len(requests) < 10
    assert max(last - first for first, last in requests) == 17
    assert [last for _, last in requests[:-1]] == [first for first, _ in requests[1:]]


def test_few_pages_are_kept() -> None:
    pages = PageCache(1, lambda start, stop: bytes(stop - start), 1000)
    assert len(pages._fetch(0, 1000)) == 1000
    assert len(pages._pages) == MOST_PAGES
