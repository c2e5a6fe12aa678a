"""Frames and files: bytes, by items and by offsets."""

from __future__ import annotations

import pytest

import caterva2.client.dataset as module
from caterva2.client import File, Frame
from caterva2.errors import Caterva2Error, Changed, InvalidSelection, Unsupported
from caterva2.frame.write import write_frame

FRAME = b"".join(n.to_bytes(4, "little") for n in range(1000))
TEXT = bytes(range(256)) * 3000


def test_items_of_a_frame(client, monkeypatch) -> None:
    frame = client["foo/f.b2frame"]
    assert isinstance(frame, Frame)
    assert (frame.nitems, len(frame), frame.typesize, frame.nbytes) == (1000, 1000, 4, 4000)
    assert frame.cbytes > 0
    assert repr(frame) == "<Frame foo/f.b2frame: 1,000 items of 4 bytes>"
    for parts in (1 << 20, 100, 3):
        monkeypatch.setattr(module, "PART_BYTES", parts)
        if parts > 50:
            assert frame[:] == frame.read() == FRAME
        assert frame[3] == FRAME[12:16]
        assert frame[-1] == FRAME[-4:]
        assert frame[10:20] == frame.read(10, 20) == FRAME[40:80]
        assert frame[-2:] == FRAME[-8:]
        assert frame[7:3] == b""
    with pytest.raises(InvalidSelection):
        frame[1000]
    with pytest.raises(InvalidSelection, match="steps of 1"):
        frame[::2]


def test_bytes_of_a_file(client) -> None:
    file = client["foo/text é #?%.bin"]
    assert isinstance(file, File)
    assert file.size == len(file) == len(TEXT)
    assert file[:] == file.read() == TEXT
    assert file[5] == TEXT[5:6]
    assert file[-3:] == TEXT[-3:]
    assert file.read(1000, 300_000) == TEXT[1000:301_000]
    assert file.read(-5) == TEXT[-5:]
    assert file.read(len(TEXT) - 2, 100) == TEXT[-2:]
    assert file.read(10**9) == b""
    assert file[9:9] == b""
    with pytest.raises(InvalidSelection):
        file[len(TEXT)]
    with pytest.raises(InvalidSelection, match="steps of 1"):
        file[::-1]
    assert client["foo/nothing"].read() == b""


def test_a_broken_array_is_a_file_that_says_why(client) -> None:
    broken = client["foo/broken.b2nd"]
    assert isinstance(broken, File)
    assert broken.error
    assert broken.error in repr(broken)
    assert broken[:7] == b"this is"


INFO = {"path": "foo/x", "kind": "file", "etag": "ab", "generation": 1, "mtime": "", "size": 10}


def test_a_read_names_its_version(serving) -> None:
    def changed(handler) -> None:
        body = b'{"type":"urn:caterva2:problem:changed","detail":"gone","path":"foo/x","current_etag":"cd"}'
        serving.send(handler, body, 412)

    server, transport = serving(changed)
    with pytest.raises(Changed) as error:
        File(transport, INFO).read(2, 3)
    assert (error.value.wanted_etag, error.value.current_etag) == ("ab", "cd")
    _, target, headers, _ = server.requests[0]
    assert target == "/data/foo/x?version=ab"
    assert (headers["If-Match"], headers["Range"]) == ('"ab"', "bytes=2-4")


def test_a_service_without_ranges_is_not_misread(serving) -> None:
    _, transport = serving(lambda handler: serving.send(handler, b"0123456789"))
    with pytest.raises(Caterva2Error, match="ranges"):
        File(transport, INFO).read(2, 3)
    frame = {**INFO, "kind": "frame", "typesize": 1, "nbytes": 10, "cbytes": 10}
    with pytest.raises(Unsupported, match="frames"):
        Frame(transport, frame).read(2, 3)


def test_refresh_refuses_another_kind(serving) -> None:
    _, transport = serving(
        lambda handler: serving.send(
            handler, b'{"path":"foo/x","kind":"frame","etag":"cd","generation":2,"mtime":""}'
        )
    )
    with pytest.raises(Caterva2Error, match="kind frame now"):
        File(transport, INFO).refresh()


@pytest.mark.parametrize("name", ["f.b2frame", "text é #?%.bin"])
def test_frames_and_files_are_refreshed_too(running, client, root, name) -> None:
    dataset, kept = client[f"foo/{name}"], (root / name).read_bytes()
    before, old = dataset.read(), dataset.etag
    try:
        if name.endswith(".b2frame"):
            write_frame(root / name, FRAME[:400], typesize=4)
        else:
            (root / name).write_bytes(TEXT[:999])
        entries = running.cluster.subscriber.catalogue.roots["foo"].entries
        running.wait_for(lambda: entries[name].etag != old)
        assert len(dataset) == len(before) // (4 if name.endswith(".b2frame") else 1)
        assert dataset.refresh() is True
        assert dataset.refresh() is False
        assert dataset.read() == before[: 400 if name.endswith(".b2frame") else 999]
    finally:
        (root / name).write_bytes(kept)
        running.wait_for(lambda: entries[name].size == len(kept))
