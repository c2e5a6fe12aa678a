"""The Zarr store: arrays and directories as zarr sees them, and no more moved than the blocks touched."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import sync
from zarr.testing.store import StoreTests

from caterva2.adapters.zarr import Caterva2Store
from caterva2.adapters.zarr_keys import Name
from caterva2.adapters.zarr_layout import Layout, nearest_divisor
from caterva2.errors import Changed, Unsupported
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster
from caterva2.testing.waiting import until

pytestmark = pytest.mark.filterwarnings(
    # types that zarr-python has and the specification does not, among them those of texts and times
    "ignore:The data type .* does not have a Zarr V3 specification"
)

GRIDS = {  # shape, chunks, blocks: parts are the blocks, near them, or the chunk
    "whole.b2nd": ((60, 50), (20, 25), (5, 25)),
    "edges.b2nd": ((33, 47), (20, 30), (10, 15)),
    "odd.b2nd": ((40, 40), (20, 20), (6, 7)),
    "prime.b2nd": ((50,), (17,), (5,)),
    "one.b2nd": ((30, 30), (10, 10), (10, 10)),
    "cube.b2nd": ((12, 10, 14), (5, 4, 6), (2, 2, 6)),
}
TYPES = {
    "scalar.b2nd": np.array(2.5, np.float32),
    "empty.b2nd": np.zeros((0, 5), np.int16),
    "complex.b2nd": np.array([1 + 2j, np.nan], np.complex128),
    "big.b2nd": np.arange(10, dtype=">f8"),
    "bool.b2nd": np.array([True, False, True]),
    "bytes.b2nd": np.array([b"ab", b"\xff"], "S3"),
    "text.b2nd": np.array(["é", "xyz"], "U4"),
    "records.b2nd": np.array([(1, 2.5, "é"), (3, -1.0, "xy")], [("a", "i4"), ("b", ">f8"), ("ç", "U3")]),
    "times.b2nd": np.array(["2020-01-01T00:00:01", "NaT"], "M8[ms]"),
    "spans.b2nd": np.array([5, -7], "m8[s]"),
}
ARRAYS = TYPES | {
    name: np.arange(1, 1 + int(np.prod(shape)), dtype=np.int32).reshape(shape)
    for name, (shape, _, _) in GRIDS.items()
}
ATTRS = {"units": "K", "_ARRAY_DIMENSIONS": ["y", "x"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("root")
    for name, array in ARRAYS.items():
        _, chunks, blocks = GRIDS.get(name, (None, None, None))
        write_array(directory / name, array, chunks=chunks, blocks=blocks, attrs=ATTRS)
    (directory / "dir" / "c").mkdir(parents=True)
    write_array(directory / "dir" / "c" / "é x.b2nd", np.arange(5.0))
    write_array(directory / "nested.b2nd", np.zeros(3, [("a", "i4", (2,))]))  # which Zarr does not have
    (directory / "file.csv").write_text("a,b\n")
    (directory / "broken.b2nd").write_bytes(b"this is no frame at all, whatever its name says")
    (directory / "stored").mkdir()
    zarr.create_array(
        directory / "stored" / "inside.zarr", data=np.arange(100).reshape(10, 10), chunks=(5, 5)
    )
    return directory


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": root})) as running:
        yield running


@pytest.fixture
def store(running) -> Iterator[Caterva2Store]:
    with Caterva2Store(f"{running.url}/data/foo") as store:
        yield store


def get(store, key, part=None):
    buffer = sync(store.get(key, default_buffer_prototype(), part))
    return None if buffer is None else buffer.to_bytes()


def collected(iterator) -> list[str]:
    async def collect():
        return [one async for one in iterator]

    return sync(collect())


# -- as zarr reads it ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_what_it_is(store, name) -> None:
    array, truth = zarr.open_array(store, path=name, mode="r"), ARRAYS[name]
    assert (array.shape, array.dtype) == (truth.shape, truth.dtype.newbyteorder("<"))
    assert np.asarray(array[...]).tobytes() == truth.astype(array.dtype).tobytes()
    assert array.attrs["units"] == "K"
    assert array.metadata.dimension_names == (("y", "x") if truth.ndim == 2 else None)
    assert ("_ARRAY_DIMENSIONS" in array.attrs) is (truth.ndim != 2)


@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parts_are_what_numpy_gives(store, name, data) -> None:
    truth = ARRAYS[name]
    bounds = [st.integers(0, length) for length in truth.shape]
    key = tuple(slice(*sorted((data.draw(bound), data.draw(bound)))) for bound in bounds)
    assert np.array_equal(zarr.open_array(store, path=name, mode="r")[key], truth[key])


def test_parts_are_blocks_or_near_them(store) -> None:
    def grid(name):
        array = zarr.open_array(store, path=name, mode="r")
        return array.shards, array.chunks

    assert grid("whole.b2nd") == ((20, 25), (5, 25))
    assert grid("edges.b2nd") == ((20, 30), (10, 15))
    assert grid("odd.b2nd") == ((20, 20), (5, 5))
    assert grid("prime.b2nd") == (None, (17,))
    assert grid("one.b2nd") == (None, (10, 10))


def test_directories_are_groups(store, running) -> None:
    group = zarr.open_group(store, mode="r")
    wanted = {name for name in ARRAYS} | {"dir", "stored"}
    assert {name for name in group if not name.startswith("b-")} == wanted
    assert sorted(group["dir"].group_keys()) == ["c"]
    assert np.array_equal(group["dir/c/é x.b2nd"][1:3], [1, 2])
    assert sorted(group["dir/c"].array_keys()) == ["é x.b2nd"]
    assert group["whole.b2nd"][3, 4] == ARRAYS["whole.b2nd"][3, 4]
    for path in ("no", "no.b2nd", "dir/no", "file.csv", "broken.b2nd"):
        with pytest.raises(KeyError):
            group[path]
    everything = zarr.open_group(Caterva2Store(running.url), mode="r")
    assert list(everything) == ["foo"]
    assert np.array_equal(everything["foo/dir/c/é x.b2nd"][:], np.arange(5.0))
    alone = zarr.open_array(Caterva2Store(f"{running.url}/data/foo/cube.b2nd"), mode="r")
    assert np.array_equal(alone[:], ARRAYS["cube.b2nd"])
    with pytest.raises(FileNotFoundError):
        zarr.open_group(Caterva2Store(f"{running.url}/data/no"), mode="r")


def test_zarr_data_among_the_files_is_seen_as_it_is(store) -> None:
    array = zarr.open_group(store, mode="r")["stored/inside.zarr"]
    assert np.array_equal(array[2:7, 3], np.arange(100).reshape(10, 10)[2:7, 3])


def test_what_zarr_does_not_have_is_left_out_and_said(store) -> None:
    with pytest.raises(Unsupported, match=r"nested.b2nd.*Zarr does not have"):
        zarr.open_array(store, path="nested.b2nd", mode="r")


def test_xarray_and_dask_read_it(store, running, root) -> None:
    (root / "b-set").mkdir()
    for name, array, dims in (
        ("t.b2nd", np.arange(600.0).reshape(20, 30), ["y", "x"]),
        ("y.b2nd", np.arange(20), ["y"]),
        ("x.b2nd", np.arange(30), ["x"]),
    ):
        write_array(root / "b-set" / name, array, attrs={"_ARRAY_DIMENSIONS": dims})
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: len([name for name in entries if name.startswith("b-set/")]) == 3)
    below = Caterva2Store(f"{running.url}/data/foo/b-set")
    with xarray.open_zarr(below, consolidated=False, chunks=None) as found:
        assert found["t.b2nd"].dims == ("y", "x")
        assert found["t.b2nd"][3, 4:6].values.tolist() == [94, 95]
    dask_array = pytest.importorskip("dask.array")
    lazy = dask_array.from_zarr(zarr.open_array(store, path="cube.b2nd", mode="r"))
    assert np.array_equal(lazy[3:9, 2].compute(scheduler="threads"), ARRAYS["cube.b2nd"][3:9, 2])


# -- objects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["edges.b2nd", "odd.b2nd", "one.b2nd", "scalar.b2nd"])
def test_every_range_is_a_part_of_the_object(store, name) -> None:
    ndim = ARRAYS[name].ndim
    for key in (
        f"{name}/zarr.json",
        "/".join((name, "c", *"1" * ndim)),
        "zarr.json",
        "stored/inside.zarr/zarr.json",
    ):
        whole = get(store, key)
        size = len(whole)
        assert sync(store.getsize(key)) == size
        for start, stop in (
            (0, 1),
            (0, size),
            (3, 70),
            (size // 3, size // 2),
            (size - 5, size),
            (5, size + 9),
        ):
            assert get(store, key, RangeByteRequest(start, stop)) == whole[start:stop]
            assert get(store, key, OffsetByteRequest(start)) == whole[start:]
            assert get(store, key, SuffixByteRequest(stop)) == whole[max(0, size - stop) :]
        assert get(store, key, OffsetByteRequest(size)) == b""


def test_an_object_is_what_zarr_would_have_stored(store, tmp_path) -> None:
    """But for the order of the parts in a shard, which the index says, and for those that are zeros."""
    ours = zarr.open_array(store, path="edges.b2nd", mode="r")
    theirs = zarr.create_array(
        tmp_path / "same.zarr",
        data=ARRAYS["edges.b2nd"],
        shards=ours.shards,
        chunks=ours.chunks,
        compressors=None,
        filters=None,
    )
    mine, other = (
        json.loads(get(store, "edges.b2nd/zarr.json")),
        json.loads((tmp_path / "same.zarr" / "zarr.json").read_text()),
    )
    for name in ("shape", "chunk_grid", "chunk_key_encoding", "data_type", "fill_value", "zarr_format"):
        assert mine[name] == other[name]
    assert mine["codecs"][0]["configuration"]["chunk_shape"] == list(theirs.chunks)


def test_what_is_no_object_is_none(store) -> None:
    for key in (
        "no/zarr.json",
        "edges.b2nd/c/2/0",
        "edges.b2nd/c/0",
        "edges.b2nd/c/00/0",
        "edges.b2nd/c",
        "edges.b2nd/0/0",
        "empty.b2nd/c/0/0",
        "dir/c/0",
        "dir",
        "../x",
        "file.csv/zarr.json",
    ):
        assert get(store, key) is None, key
        assert not sync(store.exists(key))
        with pytest.raises(FileNotFoundError):
            sync(store.getsize(key))


def test_keys_are_listed(store, running) -> None:
    chunks = [f"edges.b2nd/c/{i}/{j}" for i in range(2) for j in range(2)]
    assert collected(store.list_prefix("edges.b2nd")) == ["edges.b2nd/zarr.json", *chunks]
    assert collected(store.list_prefix("edges.b2nd/c/1")) == chunks[2:]
    below = ["zarr.json", "c/zarr.json", "c/é x.b2nd/zarr.json", "c/é x.b2nd/c/0"]
    assert collected(store.list_prefix("dir")) == [f"dir/{key}" for key in below]
    assert collected(store.list_prefix("no")) == []
    everything = collected(store.list())
    assert len(everything) == len(set(everything))
    some = {"zarr.json", "file.csv", *chunks, "stored/inside.zarr/c/1/1", "stored/zarr.json"}
    assert some <= set(everything)
    assert not [key for key in everything if key.startswith("nested")]
    for key in everything:
        assert sync(store.exists(key)), key
    top = Caterva2Store(running.url)
    keys = [f"foo/{key}" for key in ("edges.b2nd/zarr.json", *chunks)]
    assert collected(top.list_prefix("foo/edges")) == keys
    assert collected(top.list_dir("")) == ["zarr.json", "foo"]
    assert collected(store.list_dir("edges.b2nd/")) == ["zarr.json", "c"]
    assert collected(store.list_dir("empty.b2nd")) == ["zarr.json"]
    assert collected(store.list_dir("no")) == []


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("zarr.json", Name("", None)),
        ("a/b/zarr.json", Name("a/b", None)),
        ("c", Name("", ())),
        ("c/0/12", Name("", (0, 12))),
        ("c/x.b2nd/c/3", Name("c/x.b2nd", (3,))),
        ("x/c", Name("x", ())),
        ("x/cc/0", None),
        ("x/c/01", None),
        ("x/c/-1", None),
        ("xzarr.json", None),
        ("", None),
    ],
)
def test_what_a_key_names(key, name) -> None:
    assert Name.parse(key) == name


def test_the_nearest_divisor() -> None:
    for length, wanted, nearest in (
        (100, 50, 50),
        (100, 30, 25),
        (17, 5, 17),
        (17, 4, 1),
        (1, 1, 1),
        (64, 99, 64),
    ):
        assert nearest_divisor(length, wanted) == nearest


def test_parts_beyond_the_array_are_not_stored() -> None:
    layout = Layout((5, 7), (4, 4), (2, 2), 1)
    index = np.frombuffer(layout.index((1, 1)), "<u8").reshape(2, 2, 2)
    stored = index[:, :, 1] == 4
    assert stored.tolist() == [[True, True], [False, False]]
    inside = np.frombuffer(layout.index((0, 0)), "<u8").reshape(4, 2)
    assert inside.tolist() == [[0, 4], [4, 4], [8, 4], [12, 4]]


# -- versions, and what is moved -------------------------------------------------------------------


def test_a_small_slice_moves_blocks_and_no_chunks(running, root) -> None:
    noise = np.random.default_rng(1).random((100, 200, 200), np.float32)
    write_array(root / "b-noise.b2nd", noise, chunks=(20, 100, 100), blocks=(5, 50, 50))
    subscriber = running.cluster.subscriber
    running.wait_for(lambda: "b-noise.b2nd" in subscriber.catalogue.roots["foo"].entries)
    key = (slice(41, 44), slice(110, 120), slice(10, 30))
    stats = subscriber.origins.stats
    before = stats.bytes
    for _ in range(2):
        array = zarr.open_array(Caterva2Store(f"{running.url}/data/foo"), path="b-noise.b2nd", mode="r")
        assert np.array_equal(array[key], noise[key])
    moved = stats.bytes - before
    assert 5 * 50 * 50 * 4 * 0.7 < moved < 2 * 5 * 50 * 50 * 4
    before = stats.bytes
    assert np.array_equal(array[key], noise[key])
    assert stats.bytes == before


def test_a_store_stays_at_the_versions_that_it_saw(running, root) -> None:
    file = root / "b-changing.b2nd"
    write_array(file, np.arange(1000.0), chunks=[100])
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: file.name in entries)
    etag = entries[file.name].etag
    store = Caterva2Store(f"{running.url}/data/foo")
    pinned = f"{running.url}/data/foo/{file.name}?version={etag}"
    array = zarr.open_array(store, path=file.name, mode="r")
    assert array[:100].sum() == 4950
    assert zarr.open_array(Caterva2Store(pinned), mode="r")[3] == 3
    write_array(file, np.ones(2000, np.float32), chunks=[50])
    running.wait_for(lambda: entries[file.name].etag != etag)
    for other in (array, zarr.open_array(store, path=file.name, mode="r"), pickle.loads(pickle.dumps(array))):
        assert other.shape == (1000,)
        with pytest.raises(Changed):
            other[500:600]
    with pytest.raises(Changed):
        zarr.open_array(Caterva2Store(pinned), mode="r")
    later = zarr.open_array(Caterva2Store(f"{running.url}/data/foo"), path=file.name, mode="r")
    assert later[...].sum() == 2000


# -- manners ---------------------------------------------------------------------------------------


def test_it_pickles_by_url_and_without_its_token(running) -> None:
    url = f"{running.url}/data/foo/dir"
    store = Caterva2Store(url, token="a-secret", timeout_s=9)
    zarr.open_array(store, path="c/é x.b2nd", mode="r")
    for text in (repr(store), str(store), repr(pickle.dumps(store)), store.url):
        assert "secret" not in text
    again = pickle.loads(pickle.dumps(store))
    assert again == store == Caterva2Store(url)
    assert again != Caterva2Store(running.url)
    assert again._client._transport.timeout_s == 9
    assert "foo/dir/c/é x.b2nd" in again._nodes.arrays
    assert zarr.open_array(again, path="c/é x.b2nd", mode="r")[2] == 2
    assert Caterva2Store(url.replace("http", "caterva2").replace("/data", "")) == store


def test_nothing_is_written(store) -> None:
    for write in (
        lambda: zarr.open_group(store, mode="a"),
        lambda: zarr.open_array(store, path="edges.b2nd", mode="r+"),
        lambda: zarr.create_array(store, name="new", shape=(3,), dtype="i4"),
        lambda: sync(store.set("x", Buffer.from_bytes(b""))),
        lambda: sync(store.delete("edges.b2nd/zarr.json")),
        lambda: store.with_read_only(False),
        lambda: Caterva2Store("foo", read_only=False),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert store.with_read_only(True) == store
    assert not (store.supports_writes or store.supports_deletes or store.supports_partial_writes)


class TestAsTheOthers(StoreTests[Caterva2Store, Buffer]):
    """zarr-python's own tests of stores: those that can be of one that only reads, over files in a root."""

    store_cls = Caterva2Store
    buffer_cls = Buffer

    @pytest.fixture(autouse=True)
    def _below(self, running, root, request, tmp_path) -> None:
        self.running, self.root, self.name = running, root, f"b-{tmp_path.name}"
        (root / self.name).mkdir()

    @pytest.fixture
    def store_kwargs(self) -> dict:
        return {"url": f"{self.running.url}/data/foo/{self.name}", "read_only": True}

    @pytest.fixture
    async def store(self, open_kwargs):
        store = await self.store_cls.open(**open_kwargs)
        yield store
        await store._client.close()  # while its event loop is there, that of the test

    @pytest.fixture
    async def store_not_open(self, store_kwargs):
        store = self.store_cls(**store_kwargs)
        yield store
        await store._client.close()

    async def set(self, store, key, value) -> None:
        file = self.root / self.name / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(value.to_bytes())
        entries = self.running.cluster.subscriber.catalogue.roots["foo"].entries
        await until(lambda: f"{self.name}/{key}" in entries)

    async def get(self, store, key) -> Buffer:
        return Buffer.from_bytes((self.root / self.name / key).read_bytes())

    def test_store_repr(self, store) -> None:
        assert repr(store) == f"<Caterva2Store of {self.running.url}/data/foo/{self.name}>"

    def test_store_supports_writes(self, store) -> None:
        assert not store.supports_writes

    def test_store_supports_listing(self, store) -> None:
        assert store.supports_listing

    def test_store_read_only(self, store) -> None:
        assert store.read_only


for _name in (  # which write by the store
    "test_serializable_store",
    "test_store_open_read_only",
    "test_with_read_only_store",
    "test_getsize_prefix",
    "test_set",
    "test_set_not_open",
    "test_set_many",
    "test_exists",
    "test_clear",
    "test_list",
    "test_list_prefix",
    "test_list_empty_path",
    "test_list_dir",
    "test_set_if_not_exists",
):
    setattr(TestAsTheOthers, _name, None)
