"""What the `Client` of the PyPI package ``caterva2`` does with our subscriber; run by its own interpreter.

``python released_client.py URL [PASSWORD]`` prints the names of the checks that pass, a line each.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import blosc2
import httpx
import numpy as np

import caterva2  # not ours: the released one

TWO = np.arange(200, dtype=np.uint16).reshape(10, 20)
NAMES = [
    "README.md",
    "dir1/ds-2d.b2nd",
    "dir1/ds-3d.b2nd",
    "dir2/ds-4d.b2nd",
    "ds-1d.b2nd",
    "ds-hello.b2frame",
]
TEXT = b"Hello world!" * 100


@contextmanager
def refused(status):
    try:
        yield
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == status, error
    else:
        raise AssertionError(f"no {status}")


def check_roots(client):
    assert client.get_roots()["foo"]["name"] == "foo"


def check_lists(client):
    assert client.get_list("foo") == [*NAMES, "records.b2nd"]
    assert client.get_list("foo/dir1") == ["ds-2d.b2nd", "ds-3d.b2nd"]
    assert client.get_list("foo/ds-1d.b2nd") == ["ds-1d.b2nd"]
    for path in ("foo/nothing", "nothing"):
        with refused(404):
            client.get_list(path)


def check_info(client):
    array = client.get_info("foo/dir1/ds-2d.b2nd")
    assert (array["shape"], array["chunks"], array["blocks"]) == ([10, 20], [5, 5], [2, 2])
    assert (array["dtype"], array["accept_ranges"]) == ("uint16", "bytes")
    assert array["schunk"]["nbytes"] > array["schunk"]["cparams"]["typesize"] == 2
    assert client.get_info("foo/ds-hello.b2frame")["nbytes"] == len(TEXT)
    file = client.get_info("foo/README.md")
    assert file["size"] > 0 and file["mtime"]
    with refused(404):
        client.get_info("foo/nothing.b2nd")


def check_a_root(client):
    root = client.get("foo")
    assert (repr(root), str(root), root.name) == ("<Root: foo>", "foo", "foo")
    assert list(root) == root.file_list == client.get_list("foo")
    assert len(root) == 7
    assert "ds-1d.b2nd" in root
    assert "nothing" not in root
    assert type(root["README.md"]) is caterva2.File
    with refused(404):
        root["nothing"]


def check_an_array(client):
    array = client.get("foo/dir1/ds-2d.b2nd")
    assert isinstance(array, caterva2.Dataset)
    assert repr(array) == "<Array: foo/dir1/ds-2d.b2nd>"
    assert (array.shape, array.chunks, array.blocks, array.ndim) == ((10, 20), (5, 5), (2, 2), 2)
    assert (array.dtype, array.name, dict(array.vlmeta)) == ("uint16", "dir1/ds-2d.b2nd", {})
    for key in [
        3,
        -1,
        (1, slice(3, 6)),
        slice(0, 0),
        ...,
        (..., 2),
        (),
        [1, 3],
        ([1, 3], [2, 5]),
        np.array([4]),
    ]:
        assert np.array_equal(array[key], TWO[key]), key
        assert array[key].shape == TWO[key].shape, key
    many = np.random.default_rng(0).integers(0, 10, 4000)  # does not fit in a URL
    assert np.array_equal(array[many], TWO[many])
    part = array.slice((slice(2, 5), slice(1, 4)))
    assert isinstance(part, blosc2.NDArray)
    assert np.array_equal(part[:], TWO[2:5, 1:4])
    assert np.array_equal(array.slice(slice(1, 3), as_blosc2=False), TWO[1:3])


def check_fetch(client):
    path = "foo/dir1/ds-2d.b2nd"
    assert np.array_equal(client.fetch(path), TWO)
    assert np.array_equal(client.fetch(path, (slice(0, 2), 3)), TWO[:2, 3])
    assert np.array_equal(client.fetch(path, "0:2, 1"), TWO[:2, 1])
    assert np.array_equal(client.get_slice(client.get(path), slice(0, 1))[:], TWO[:1])
    assert client.fetch("foo/dir2/ds-4d.b2nd", (1, 2, 3, 4)) == 119
    with refused(404):
        client.fetch("foo/nothing.b2nd")


def check_a_frame(client):
    frame = client.get("foo/ds-hello.b2frame")
    assert frame[:] == TEXT
    assert frame[6:11] == b"world"
    assert isinstance(frame.slice(slice(0, 12)), blosc2.SChunk)


def check_chunks(client):
    chunk = client.get_chunk("foo/ds-1d.b2nd", 1)
    assert np.array_equal(np.frombuffer(blosc2.decompress2(chunk), "i8"), np.arange(100, 200))
    assert blosc2.decompress2(client.get_chunk("foo/ds-hello.b2frame", 0)) == TEXT
    with refused(404):
        client.get_chunk("foo/ds-1d.b2nd", 10)


def check_downloads(client):
    with tempfile.TemporaryDirectory() as directory:
        text = client.download("foo/README.md", Path(directory, "text"))
        assert text.read_text().startswith("# An example root")
        array = client.get("foo/dir1/ds-2d.b2nd").download(Path(directory, "sub", "x.b2nd"))
        assert np.array_equal(blosc2.open(str(array))[:], TWO)
        with refused(404):
            client.download("foo/nothing", Path(directory, "nothing"))
        assert not Path(directory, "nothing").exists()


def check_fields(client):
    records = client.get("foo/records.b2nd")
    assert records["a"][:].tolist() == [1, 3, 5]
    assert records[1:].tolist() == [(3, -1.0), (5, 0.25)]
    with refused(400):
        client.get_slice("foo/records.b2nd", field="c")


def check_lazy_expressions(client):
    array = client.get("foo/dir1/ds-2d.b2nd")
    assert np.array_equal((array + 1)[2:4], TWO[2:4] + 1)
    assert np.array_equal(blosc2.lazyexpr("a * 2", {"a": array}).compute()[:], TWO * 2)


def check_what_is_only_theirs_is_refused(client):
    with refused(400):
        client.get("foo/records.b2nd")["a > 1"]  # a filter
    with tempfile.NamedTemporaryFile() as file:
        for call in [
            lambda: client.upload(file.name, "foo/new"),
            lambda: client.copy("foo/README.md", "foo/new"),
            lambda: client.move("foo/README.md", "foo/new"),
            lambda: client.remove("foo/README.md"),
            lambda: client.unfold("foo/README.md"),
            lambda: client.lay_out("foo/new.b2nd", (3,), "i4"),
            lambda: client.load_from_url("http://127.0.0.1/x", "foo/new"),
            lambda: client.upload(blosc2.lazyexpr("a", {"a": client.get("foo/ds-1d.b2nd")}), "foo/new.b2nd"),
            lambda: client.adduser("a", "b"),
            client.listusers,
            lambda: client.get("foo/dir1"),  # their groups
        ]:
            with refused(404):
                call()
    assert "new" not in client.get("foo")


def main(url, password=None):
    with caterva2.Client(url, ("anybody", password) if password else None, timeout=30) as client:
        for name, check in list(globals().items()):
            if name.startswith("check_"):
                check(client)
                print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
