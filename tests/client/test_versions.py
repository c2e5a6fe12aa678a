"""Which version is next, and trying again with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import caterva2.client.versions as module
from caterva2.client import File, connect
from caterva2.client.retries import PAUSES_S
from caterva2.client.versions import next_etag
from caterva2.errors import Changed, InvalidPath, NotFound, Unavailable
from caterva2.frame.write import write_array

INFO = {"path": "foo/x", "kind": "file", "etag": "old", "generation": 1, "mtime": "", "size": 10}
REPLACED = json.dumps({"type": "urn:caterva2:problem:changed", "detail": "it is being replaced"}).encode()


class Replacement:
    """Answers as a service of which a file is being replaced: the next version is known after some looks."""

    def __init__(self, send, *etags: str | int) -> None:
        self.send, self.etags = send, list(etags)

    def __call__(self, handler) -> None:
        if not handler.path.startswith("/api/info/"):
            self.send(handler, REPLACED, 412)
            return
        etag = self.etags.pop(0) if len(self.etags) > 1 else self.etags[0]
        if isinstance(etag, int):
            self.send(handler, b"", etag)
        else:
            self.send(handler, json.dumps(INFO | {"etag": etag, "generation": 2}).encode())


def test_the_next_version_is_waited_for(serving) -> None:
    _, transport = serving(Replacement(serving.send, "old", 503, 412, "old", "new"))
    with pytest.raises(Changed) as changed:
        File(transport, INFO)[:]
    error = changed.value
    assert (error.path, error.wanted_etag, error.current_etag) == ("foo/x", "old", "new")


def test_a_next_version_that_does_not_come_is_none(serving, monkeypatch) -> None:
    monkeypatch.setattr(module, "NEXT_WAIT_S", 0.1)
    _, transport = serving(Replacement(serving.send, "old"))
    with pytest.raises(Changed, match="is being replaced") as changed:
        File(transport, INFO)[:]
    assert (changed.value.wanted_etag, changed.value.current_etag) == ("old", None)


def test_a_dataset_that_was_deleted_has_no_next_version(serving) -> None:
    _, transport = serving(Replacement(serving.send, "old", 404))
    with pytest.raises(NotFound):
        next_etag(transport, "foo/x", "old")


def test_a_broken_answer_is_asked_for_again_a_few_times(serving) -> None:
    def break_off(handler) -> None:
        serving.send(handler, b"01", 206, Content_Length="10")
        handler.close_connection = True

    server, transport = serving(break_off)
    with pytest.raises(Unavailable):
        File(transport, INFO)[:]
    assert len(server.requests) == 1 + len(PAUSES_S)


class Replacing:
    """Replaces an array each time that it was opened, a number of times."""

    def __init__(self, running, file, times: int) -> None:
        self.running, self.file, self.times = running, file, times

    def __call__(self, info):
        if self.times:
            self.times -= 1
            write_array(self.file, np.full(1000, self.times), chunks=[100])
            entries = self.running.cluster.subscriber.catalogue.roots["foo"].entries
            self.running.wait_for(lambda: entries[self.file.name].etag != info["etag"])
        return info


@pytest.mark.parametrize("times", [1, 2, 3])
def test_reading_by_path_is_of_the_version_that_is_current(running, root, monkeypatch, times) -> None:
    file = root / f"overtaken{times}.b2nd"
    write_array(file, np.full(1000, 99), chunks=[100])
    running.wait_for(lambda: file.name in running.cluster.subscriber.catalogue.roots["foo"].entries)
    with connect(running.url) as client:
        assert client.read(f"foo/{file.name}", np.s_[5:7]).tolist() == [99, 99]
        info, replacing = client.info, Replacing(running, file, times)
        monkeypatch.setattr(client, "info", lambda path: replacing(info(path)))
        if times < module.ATTEMPTS:
            assert client.read(f"foo/{file.name}", slice(500, 502)).tolist() == [0, 0]
        else:
            with pytest.raises(Changed):
                client.read(f"foo/{file.name}", slice(500, 502))


def test_reading_by_path_is_as_by_dataset(client, truths) -> None:
    assert np.array_equal(client.read("foo/ints.b2nd"), truths["ints.b2nd"])
    assert client.read("foo/nothing") == b""
    assert client.read("foo/f.b2frame", 3) == (3).to_bytes(4, "little")
    with pytest.raises(InvalidPath):
        client.read("foo")
