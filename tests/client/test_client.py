"""The connection and its mappings, through real services."""

from __future__ import annotations

import threading
import urllib.request

import numpy as np
import pytest

import caterva2
from caterva2.client import Array, File, Frame, Root, RootInfo, connect
from caterva2.errors import ConfigError, InvalidPath, NotFound


def test_roots_are_a_mapping(running, client) -> None:
    assert list(client) == ["foo"]
    assert len(client) == 1
    assert "foo" in client
    assert "bar" not in client
    root = client["foo"]
    assert isinstance(root, Root)
    assert root.name == "foo"
    assert root.info.state == "online"
    assert repr(root).startswith("<Root foo: ")
    assert "dir1/é #?%&+.b2nd" in root
    assert "nope" not in root
    assert client.get("nope") is None
    assert client.get("foo/nope", 7) == 7
    assert root.get("nope", 8) == 8
    assert set(root) >= {"ints.b2nd", "f.b2frame", "nothing"}
    assert len(root) == len(root.list())
    assert {client: 1, root: 2}[client] == 1
    assert client != connect(running.url)


def test_a_dataset_is_of_its_kind(client) -> None:
    kinds = {"ints.b2nd": Array, "f.b2frame": Frame, "nothing": File, "broken.b2nd": File}
    for name, kind in kinds.items():
        assert type(client[f"foo/{name}"]) is kind
        assert type(client["foo"][name]) is kind
    assert np.array_equal(client["foo/dir1/é #?%&+.b2nd"][1:], [1, 2, 3, 4])


@pytest.mark.parametrize("path", ["bar", "foo/nope", "bar/x", "foo/dir", "foo/dir1/nope"])
def test_what_is_not_there(client, path) -> None:
    with pytest.raises(NotFound) as missing:
        client[path]
    assert isinstance(missing.value, FileNotFoundError)


@pytest.mark.parametrize("path", ["", "/", "foo/", "/foo", "foo//x", "foo/../foo/nothing", "f\0o"])
def test_what_is_no_path(client, path) -> None:
    with pytest.raises(InvalidPath):
        client[path]


def test_listings(client, root, truths) -> None:
    rows = {row.path: row for row in client.list("foo")}
    assert list(rows) == sorted(rows)
    for name, truth in truths.items():
        row = rows[f"foo/{name}"]
        assert (row.kind, row.shape, row.size) == ("array", truth.shape, (root / name).stat().st_size)
        assert row.error is None
    assert rows["foo/nothing"].dtype is rows["foo/nothing"].shape is None
    assert rows["foo/broken.b2nd"].error
    assert [row.path for row in client.list("foo/dir1/")] == ["foo/dir1/é #?%&+.b2nd"]
    assert [row.path for row in client.list("foo/nothing")] == ["foo/nothing"]
    assert len(client.list()) == len(rows)
    with pytest.raises(NotFound):
        client.list("foo/dir")
    with pytest.raises(NotFound):
        client.list("bar")
    (info,) = client.roots()
    assert isinstance(info, RootInfo)
    assert info.datasets == len(rows)
    assert info.bytes == sum(row.size for row in rows.values())


def test_long_listings_come_in_pages(client, monkeypatch) -> None:
    whole = client.list("foo")
    monkeypatch.setattr("caterva2.client.protocol.PAGE_ROWS", 3)
    assert client.list("foo") == whole


def test_the_url_is_that_of_the_bytes(client, root) -> None:
    url = client.url("foo/text é #?%.bin")
    with urllib.request.urlopen(url) as response:
        assert response.read() == (root / "text é #?%.bin").read_bytes()
    assert client["foo/nothing"].url == client.url("foo/nothing")


def test_following(client) -> None:
    assert client.followed() == []
    assert client.follow("foo/ints.b2nd") == 1
    assert client.follow("foo/dir1/*") == 1
    assert [row.path for row in client.followed()] == ["foo/dir1/é #?%&+.b2nd", "foo/ints.b2nd"]
    assert client.followed()[0].freshness == "fresh"
    assert client.unfollow("foo/dir1/*") == 1
    assert client.unfollow("foo/ints.b2nd") == 1
    assert client.followed() == []
    with pytest.raises(NotFound):
        client.unfollow("foo/ints.b2nd")


def test_a_publisher_has_the_same_api_but_for_following(running, truths) -> None:
    with connect(running.cluster.publisher.address.url) as client:
        assert np.array_equal(client["foo/ints.b2nd"][3:5], truths["ints.b2nd"][3:5])
        with pytest.raises(NotFound):
            client.followed()


def test_threads_share_a_client(client, truths) -> None:
    array, wrong = client["foo/ints.b2nd"], []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(10):
            key = (slice(*sorted(random.integers(0, 60, 2).tolist())), int(random.integers(50)))
            if not np.array_equal(array[key], truths["ints.b2nd"][key]):
                wrong.append(key)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_connect_takes_its_settings_from_everywhere(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("CATERVA2_SUBSCRIBER", raising=False)
    assert caterva2.connect().subscriber == "http://127.0.0.1:8002"
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", "http://there:9")
    assert caterva2.connect().subscriber == "http://there:9"
    assert caterva2.connect("http://other:9/").subscriber == "http://other:9"
    assert repr(caterva2.connect("http://other:9")) == "<Client of http://other:9>"
    for wrong in ({"url": "other:9"}, {"token": "short"}, {"timeout_s": 0}, {"token_file": tmp_path / "no"}):
        with pytest.raises(ConfigError):
            caterva2.connect(**wrong)
