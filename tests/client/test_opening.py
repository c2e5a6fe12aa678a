"""Opening by URL, and sending what was opened to other processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy

import numpy as np
import pytest

import caterva2
from caterva2.client import Array, Client, Directory, File, Frame, Root, close_shared
from caterva2.client import shared as module
from caterva2.errors import Changed, InvalidPath, NotFound

SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _alone(running, monkeypatch, tmp_path):
    """As in a process that has opened nothing yet, with a subscriber configured."""
    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", running.url)
    close_shared()
    yield
    close_shared()


def test_a_url_opens_what_it_names(running, truths) -> None:
    for location, kind in {
        "": Client,
        running.url: Client,
        "foo": Root,
        f"{running.url}/data/foo/": Root,
        "caterva2:///foo/dir1": Directory,
        "foo/f.b2frame": Frame,
        f"{running.url.replace('http', 'caterva2')}/foo/nothing": File,
        f"{running.url}/data/foo/ints.b2nd": Array,
    }.items():
        assert type(caterva2.open(location)) is kind, location
    assert np.array_equal(caterva2.open("foo/ints.b2nd")[3:5], truths["ints.b2nd"][3:5])
    with pytest.raises(NotFound):
        caterva2.open("foo/none")
    with pytest.raises(InvalidPath):
        caterva2.open("ftp://there/foo")


def test_a_url_of_a_version_opens_that_one_or_none(client) -> None:
    url = client.url("foo/ints.b2nd", client["foo/ints.b2nd"].etag)
    assert caterva2.open(url).path == "foo/ints.b2nd"
    with pytest.raises(Changed) as changed:
        caterva2.open(client.url("foo/ints.b2nd", "of-before"))
    assert (changed.value.wanted_etag, changed.value.current_etag) == (
        "of-before",
        client["foo/ints.b2nd"].etag,
    )


def test_what_is_opened_by_its_url_shares_connections() -> None:
    one, other = caterva2.open("foo/ints.b2nd"), caterva2.open("foo/f.b2frame")
    assert one._transport is other._transport
    assert caterva2.open("foo/ints.b2nd", token=SECRET)._transport is not one._transport
    assert caterva2.open() is not caterva2.open()


def test_what_is_pickled_is_the_same_elsewhere(client, truths) -> None:
    array, file = client["foo/ints.b2nd"], client["foo/nothing"]
    for dataset in (array, file, client["foo/f.b2frame"]):
        again = pickle.loads(pickle.dumps(dataset))
        assert type(again) is type(dataset)
        assert (again.path, again.etag, again.info) == (dataset.path, dataset.etag, dataset.info)
    assert np.array_equal(pickle.loads(pickle.dumps(array))[7], truths["ints.b2nd"][7])
    for group in (client["foo"], client["foo/dir1"]):
        assert list(pickle.loads(pickle.dumps(group))) == list(group)
    assert pickle.loads(pickle.dumps(client)).subscriber == client.subscriber


def test_unpickling_asks_nobody_and_shares_connections(serving, client) -> None:
    server, transport = serving(lambda handler: serving.send(handler, b"{}"))
    data = pickle.dumps(Array(transport, client.info("foo/ints.b2nd")))
    with ThreadPoolExecutor(8) as threads:
        arrays = list(threads.map(pickle.loads, [data] * 200))
    assert server.requests == []
    assert len({id(array._transport) for array in arrays[100:]}) == 1


def test_a_token_is_not_pickled_but_taken_from_the_process(running, monkeypatch) -> None:
    with caterva2.connect(running.url, token=SECRET) as client:
        pickled = [pickle.dumps(one) for one in (client, client["foo"], client["foo/ints.b2nd"])]
    assert all(SECRET.encode() not in data for data in pickled)
    monkeypatch.setenv("CATERVA2_TOKEN", "another-secret")
    array = pickle.loads(pickled[-1])
    assert array._transport._headers["Authorization"] == "Bearer another-secret"


def test_a_copy_has_the_token_and_the_connections_of_the_original(running) -> None:
    with caterva2.connect(running.url, token=SECRET) as client:
        for original in (client["foo/ints.b2nd"], client["foo/nothing"], client["foo"], client):
            for again in (copy(original), deepcopy(original)):
                assert type(again) is type(original)
                kept = getattr(again, "_transport", None) or again._client._transport
                assert kept is client._transport
        array = client["foo/ints.b2nd"]
        assert copy(array) is not array
        assert copy(array).etag == array.etag


def test_another_process_reads_on(client, truths) -> None:
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)[3].sum())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(client["foo/ints.b2nd"]),
        capture_output=True,
        check=True,
    )
    assert int(done.stdout) == truths["ints.b2nd"][3].sum()


FORK = """
import os, sys, caterva2
array = caterva2.open("foo/ints.b2nd")
before = array[3].tobytes()
child = os.fork()
if not child:
    os._exit(0 if caterva2.open("foo/ints.b2nd")[3].tobytes() == array[3].tobytes() == before else 1)
assert os.waitpid(child, 0)[1] == 0
assert array[3].tobytes() == before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_shared_connections_survive_a_fork() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)


def test_shared_connections_can_be_closed(running) -> None:
    array = caterva2.open("foo/ints.b2nd")
    close_shared()
    assert module._transports.cache_info().currsize == 0
    assert array[1, 0] == 50  # who has one goes on
    assert caterva2.open("foo/ints.b2nd")._transport is not array._transport
