"""Downloads: byte for byte, resumed, started over, refused with a reason."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import caterva2.client.download as module
from caterva2.client.download import PartFile
from caterva2.errors import Changed, NotFound, Unavailable
from caterva2.frame.write import write_array

NAME = "text é #?%.bin"
PATH = f"foo/{NAME}"
TEXT = bytes(range(256)) * 3000


def leftovers(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir() if ".part" in file.name]


@pytest.mark.parametrize(
    "name", [NAME, "nothing", "ints.b2nd", "f.b2frame", "dir1/é #?%&+.b2nd", "broken.b2nd"]
)
def test_the_file_is_what_is_published(client, root, tmp_path, name) -> None:
    seen = []
    target = tmp_path / "new" / "directory"
    record = client.download(f"foo/{name}", target, lambda done, total: seen.append((done, total)))
    file, original = target / Path(name).name, root / name
    assert record.file == str(file)
    assert file.read_bytes() == original.read_bytes()
    assert file.stat().st_mtime_ns == original.stat().st_mtime_ns
    size = original.stat().st_size
    assert (record.path, record.bytes, record.fetched_bytes) == (f"foo/{name}", size, size)
    assert seen[-1] == (size, size)
    assert leftovers(target) == []


def test_a_download_replaces_what_was_there(client, tmp_path) -> None:
    (tmp_path / NAME).write_bytes(b"old")
    client.download(PATH, tmp_path)
    assert (tmp_path / NAME).read_bytes() == TEXT


def test_the_directory_may_be_a_text_or_below_the_home(client, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for directory in (str(tmp_path), tmp_path, "~/data", Path("~/data")):
        with pytest.raises(KeyboardInterrupt):
            client.download(PATH, directory, interrupt_at(300_000))
        record = client.download(PATH, directory)
        assert 0 < record.fetched_bytes < len(TEXT)
        assert Path(record.file).read_bytes() == TEXT
    assert record.file == str(tmp_path / "data" / NAME)


def interrupt_at(limit: int):
    def progress(done: int, total: int) -> None:
        if done >= limit:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_download_goes_on(client, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 100_000)
    with pytest.raises(KeyboardInterrupt):
        client.download(PATH, tmp_path, interrupt_at(300_000))
    assert not (tmp_path / NAME).exists()
    assert (tmp_path / f"{NAME}.part").read_bytes() == TEXT[:300_000]
    record = client.download(PATH, tmp_path)
    assert record.fetched_bytes == len(TEXT) - 300_000
    assert (tmp_path / NAME).read_bytes() == TEXT
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "note",
    [None, "", "{", "[]", json.dumps({"path": PATH, "etag": "another", "size": len(TEXT)})],
)
def test_a_part_of_unknown_origin_is_not_used(client, tmp_path, note) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"\0" * 1000)
    if note is not None:
        (tmp_path / f"{NAME}.part.json").write_text(note)
    assert client.download(PATH, tmp_path).fetched_bytes == len(TEXT)
    assert (tmp_path / NAME).read_bytes() == TEXT


def test_a_part_longer_than_the_file_is_not_used(client, tmp_path) -> None:
    note = {"path": PATH, "etag": client.info(PATH)["etag"], "size": len(TEXT)}
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps(note))
    (tmp_path / f"{NAME}.part").write_bytes(TEXT + b"more")
    client.download(PATH, tmp_path)
    assert (tmp_path / NAME).read_bytes() == TEXT


def test_a_complete_part_is_only_given_its_name(client, tmp_path) -> None:
    note = {"path": PATH, "etag": client.info(PATH)["etag"], "size": len(TEXT)}
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps(note))
    (tmp_path / f"{NAME}.part").write_bytes(TEXT)
    assert client.download(PATH, tmp_path).fetched_bytes == 0
    assert (tmp_path / NAME).read_bytes() == TEXT


def test_a_dataset_that_changed_meanwhile_is_started_over(
    running, client, root, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 10_000)
    random = np.random.default_rng(1)
    file = write_array(root / "moving.b2nd", random.random(20_000), chunks=[1000])
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: "moving.b2nd" in entries)
    old = entries["moving.b2nd"].etag
    with pytest.raises(KeyboardInterrupt):
        client.download("foo/moving.b2nd", tmp_path, interrupt_at(50_000))
    write_array(file, random.random(19_000), chunks=[1000])
    running.wait_for(lambda: entries["moving.b2nd"].etag != old)
    record = client.download("foo/moving.b2nd", tmp_path)
    assert record.fetched_bytes == record.bytes == file.stat().st_size
    assert (tmp_path / "moving.b2nd").read_bytes() == file.read_bytes()
    assert leftovers(tmp_path) == []


def test_a_version_that_is_gone_while_it_is_downloaded_is_started_over(
    serving, client, manifest, tmp_path
) -> None:
    from caterva2.model.manifest import Head

    head = Head.decode(manifest)
    old = replace(head, etag="0" * 32, size=500_000)
    problem = b'{"type":"urn:caterva2:problem:changed","detail":"again","current_etag":"cd"}'
    heads = [old.encode(), manifest]

    def answer(handler) -> None:
        if handler.path.startswith("/api/manifest/"):
            serving.send(handler, heads.pop(0))
        elif handler.headers["If-Match"] == f'"{head.etag}"':
            serving.send(handler, TEXT, 206)
        elif handler.headers["Range"] == "bytes=0-":
            serving.send(handler, b"x" * 1000, 206, Content_Length="500000")
            handler.close_connection = True
        else:
            serving.send(handler, problem, 412)

    _, transport = serving(answer)
    record = module.download(transport, PATH, str(tmp_path))
    assert (tmp_path / NAME).read_bytes() == TEXT
    assert (record.bytes, record.fetched_bytes) == (len(TEXT), len(TEXT) + 1000)


class Breaking:
    """Sends a file by the wire of the API, breaking the connection after some bytes each time."""

    def __init__(self, send, manifest: bytes, data: bytes, each: int) -> None:
        self.send, self.manifest, self.data, self.each = send, manifest, data, each

    def __call__(self, handler) -> None:
        if handler.path.startswith("/api/manifest/"):
            self.send(handler, self.manifest)
            return
        start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
        rest = self.data[start:]
        self.send(handler, rest[: self.each], 206, Content_Length=str(len(rest)))
        handler.close_connection = True


@pytest.fixture
def manifest(client) -> bytes:
    from caterva2.client.protocol import ask_manifest

    return client._transport.call(ask_manifest(PATH)).body


def test_a_transfer_that_breaks_goes_on_by_itself(serving, manifest, tmp_path) -> None:
    server, transport = serving(Breaking(serving.send, manifest, TEXT, 200_000))
    record = module.download(transport, PATH, str(tmp_path))
    assert (tmp_path / NAME).read_bytes() == TEXT
    assert record.fetched_bytes == len(TEXT)
    ranges = [headers["Range"] for _, _, headers, _ in server.requests[1:]]
    assert ranges == ["bytes=0-", "bytes=200000-", "bytes=400000-", "bytes=600000-"]


def test_a_transfer_without_progress_ends_and_keeps_what_it_has(
    serving, manifest, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    breaking = Breaking(serving.send, manifest, TEXT, 200_000)
    _, transport = serving(breaking)

    def only_once(done: int, total: int) -> None:
        breaking.each = 0 if done else breaking.each

    with pytest.raises(Unavailable, match=r"200,000 of 768,000 bytes are kept"):
        module.download(transport, PATH, str(tmp_path), only_once)
    breaking.each = 10**9
    assert module.download(transport, PATH, str(tmp_path)).fetched_bytes == len(TEXT) - 200_000
    assert (tmp_path / NAME).read_bytes() == TEXT


def test_a_dataset_that_changes_all_the_time_is_given_up(serving, manifest, tmp_path) -> None:
    problem = b'{"type":"urn:caterva2:problem:changed","detail":"again","current_etag":"cd"}'

    def answer(handler) -> None:
        if handler.path.startswith("/api/manifest/"):
            serving.send(handler, manifest)
        else:
            serving.send(handler, problem, 412)

    server, transport = serving(answer)
    with pytest.raises(Changed, match="again"):
        module.download(transport, PATH, str(tmp_path))
    assert len(server.requests) == 2 * module.ATTEMPTS


def test_what_is_not_there_leaves_nothing_behind(client, tmp_path) -> None:
    with pytest.raises(NotFound):
        client.download("foo/nope.b2nd", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_no_space_is_seen_before_anything_is_fetched(client, tmp_path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(OSError, match="768,000 more bytes are needed, 0 are free") as no:
        client.download(PATH, tmp_path)
    assert no.value.filename == str(tmp_path)


def test_a_directory_in_the_way_is_named(client, tmp_path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(IsADirectoryError) as way:
        client.download(PATH, tmp_path)
    assert way.value.filename == str(tmp_path / NAME)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        client.download(PATH, tmp_path / "file")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_named(client, tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"\.part"):
        client.download(PATH, tmp_path)
    tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
def test_two_downloads_of_a_file_do_not_mix(client, tmp_path) -> None:
    with PartFile(tmp_path / NAME), pytest.raises(OSError, match="another download"):
        client.download(PATH, tmp_path)
    client.download(PATH, tmp_path)
    assert (tmp_path / NAME).read_bytes() == TEXT
