"""Datasets of xarray over real services: what they hold, what is moved for them, and in which version."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import iris_sample_data
import numpy as np
import pytest
import xarray as xr

import caterva2
from caterva2.adapters.xarray import Caterva2Backend
from caterva2.config import Token
from caterva2.errors import Changed, InvalidPath, NotFound, TooLarge, Unsupported
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster

SHAPE = (40, 30, 50)
FIELD = np.random.default_rng(7).integers(-30_000, 30_000, SHAPE, np.int16)  # noise: bytes can be counted
TRUTH = xr.Dataset(
    {
        "field": (("time", "y", "x"), FIELD, {"units": "K", "valid": [1, 2]}),
        "mask": (("y", "x"), FIELD[0] > 0),
    },
    coords={"x": np.linspace(0, 1, 50), "time": np.arange(40)},
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("root")
    for name in ("cube", "cube/inner", "kinds", "cf", "odd"):
        (directory / name).mkdir()
    for name, variable in TRUTH.variables.items():
        attrs = {"_ARRAY_DIMENSIONS": list(variable.dims)} | variable.attrs
        geometry = {"chunks": (10, 15, 25), "blocks": (5, 5, 5)} if name == "field" else {}
        write_array(directory / "cube" / f"{name}.b2nd", variable.values, attrs=attrs, **geometry)
    write_array(directory / "cube" / "inner" / "other.b2nd", np.arange(7), attrs={"dims": "time"})
    (directory / "cube" / "notes.txt").write_text("not an array")
    for name, values in KINDS.items():
        write_array(directory / "kinds" / f"{name}.b2nd", values)
    for name, (values, attrs, _) in CF.items():
        write_array(directory / "cf" / f"{name}.b2nd", values, attrs=attrs)
    for name, attrs in ODD.items():
        write_array(directory / "odd" / f"{name}.b2nd", np.arange(3, dtype=np.int8), attrs=attrs)
    return directory


ODD = {"text": {"_FillValue": "none"}, "large": {"_FillValue": 1000}, "several": {"missing_value": [1, 2]}}

KINDS = {
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 5), np.int16),
    "complex": np.array([1 + 2j, 3], np.complex128),
    "bool": np.array([True, False, True]),
    "bytes": np.array([b"ab", b"\xff"], "S3"),
    "text": np.array(["é", "xyz"], "U4"),
    "records": np.array([(1, 2.5, "é"), (3, -1.0, "xy")], [("a", "i4"), ("b", "f8"), ("ç", "U3")]),
    "times": np.array(["2020-01-01T00:00:01", "NaT"], "M8[ms]"),
    "days": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "spans": np.array([5, -7], "m8[s]"),
    "big": np.arange(5, dtype=">f4"),
}

CF = {
    # stored, attributes, what xarray makes of it
    "packed": (
        np.array([1, 2, -9], np.int16),
        {"scale_factor": 0.5, "add_offset": 10, "_FillValue": -9},
        [10.5, 11.0, np.nan],
    ),
    "unsigned": (np.array([-1, 1], np.int8), {"_Unsigned": "true"}, np.array([255, 1], np.uint8)),
    "holes": (np.array([1, 1e20], np.float32), {"missing_value": 1e20}, np.array([1, np.nan], np.float32)),
    "nans": (np.array([1, np.nan]), {"_FillValue": float("nan")}, [1, np.nan]),
    "when": (
        np.array([0, 36]),
        {"units": "hours since 2000-01-01"},
        np.array(["2000-01-01", "2000-01-02T12"], "M8[ns]"),
    ),
}


@pytest.fixture(scope="module")
def running(root, tmp_path_factory) -> Iterator[RunningCluster]:
    with running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": root})) as running:
        yield running


def opened(running: RunningCluster, path: str, **options) -> xr.Dataset:
    return xr.open_dataset(f"{running.url}/data/foo/{path}", engine="caterva2", **options)


def moved(running: RunningCluster) -> int:
    return running.cluster.subscriber.origins.stats.bytes


# -- what there is ---------------------------------------------------------------------------------


def test_an_array_is_a_dataset_of_one_variable(running) -> None:
    with opened(running, "cube/field.b2nd") as dataset:
        assert list(dataset.variables) == ["field"]
        assert dataset.field.identical(TRUTH.field.drop_vars(["time", "x"]))
        assert dataset.field.encoding["preferred_chunks"] == {"time": 10, "y": 15, "x": 25}
        assert dataset.field.encoding["source"] == f"{running.url}/data/foo/cube/field.b2nd"
        with caterva2.connect(running.url) as client:
            assert dataset.field.encoding["etag"] == client["foo/cube/field.b2nd"].etag


def test_a_directory_is_a_dataset_of_its_arrays_with_coordinates(running) -> None:
    assert opened(running, "cube").identical(TRUTH)
    assert (
        opened(running, "cube/").sel(x=0.51, method="nearest").identical(TRUTH.sel(x=0.51, method="nearest"))
    )


def test_other_forms_of_what_to_open(running, monkeypatch) -> None:
    host = running.url.removeprefix("http://")
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", running.url)
    with caterva2.connect(running.url) as client:
        for what in (
            f"caterva2://{host}/foo/cube",
            "caterva2:///foo/cube",
            "foo/cube",
            caterva2.open("foo/cube"),
        ):
            assert xr.open_dataset(what, engine="caterva2").identical(TRUTH)
        array = client["foo/cube/mask.b2nd"]
        assert xr.open_dataarray(array, engine="caterva2").identical(TRUTH.mask.drop_vars("x"))


def test_a_tree_has_all_directories_below(running) -> None:
    tree = xr.open_datatree(f"{running.url}/data/foo", engine="caterva2", drop_variables=list(ODD))
    assert tree["cube"].to_dataset().identical(TRUTH)
    assert set(tree.groups) == {"/", "/cube", "/cube/inner", "/cf", "/kinds", "/odd"}
    # "time" has 40 elements around it
    assert tree["cube/inner/other"].dims == ("other_time",)
    assert tree["cube/inner/other"].values.tolist() == list(range(7))


@pytest.mark.parametrize("name", KINDS)
def test_types(running, name) -> None:
    for chunks in (None, {}):
        values = opened(running, f"kinds/{name}.b2nd", chunks=chunks)[name].values
        assert np.array_equal(values, KINDS[name], equal_nan=KINDS[name].dtype.kind in "fmM")
        assert values.shape == KINDS[name].shape


@pytest.mark.parametrize("name", CF)
def test_xarray_decodes_the_conventions_for_climate_and_forecast(running, name) -> None:
    _, attrs, truth = CF[name]
    variable = opened(running, f"cf/{name}.b2nd")[name]
    assert np.array_equal(variable.values, truth, equal_nan=True)
    if isinstance(truth, np.ndarray):
        assert variable.dtype == truth.dtype
    raw = opened(running, f"cf/{name}.b2nd", decode_cf=False)[name]
    assert np.array_equal(raw.values, CF[name][0], equal_nan=True)
    assert raw.attrs.keys() == attrs.keys()


@pytest.mark.parametrize("name", ["text", "large"])
def test_what_cannot_stand_for_missing_data_is_left_out(running, name) -> None:
    with pytest.warns(UserWarning, match=f"_FillValue .* of '{name}' is no int8: left out"):
        dataset = opened(running, f"odd/{name}.b2nd")
    assert dataset[name].values.tolist() == [0, 1, 2]


def test_several_values_can_stand_for_missing_data(running) -> None:
    with pytest.warns(xr.SerializationWarning, match="multiple fill values"):
        dataset = opened(running, "odd/several.b2nd")
    assert np.array_equal(dataset.several, [0, np.nan, np.nan], equal_nan=True)


@pytest.mark.parametrize("name", ["A1B_north_america", "ostia_monthly", "rotated_pole", "hybrid_height"])
def test_real_data_is_what_xarray_reads_from_the_original_file(tmp_path, name) -> None:
    root = tmp_path / "root"
    root.mkdir()
    original = Path(iris_sample_data.path) / f"{name}.nc"
    with xr.open_dataset(original, decode_cf=False) as stored:
        for variable_name, variable in stored.variables.items():
            attrs = {"_ARRAY_DIMENSIONS": list(variable.dims)} | variable.attrs
            attrs = {
                key: value.item() if isinstance(value, np.generic) else value for key, value in attrs.items()
            }
            write_array(root / f"{variable_name}.b2nd", variable.values, attrs=attrs)
    with (
        running_cluster(Cluster(tmp_path / "state", {"met": root})) as running,
        xr.open_dataset(original) as truth,
        xr.open_dataset(f"{running.url}/data/met", engine="caterva2") as dataset,
    ):
        assert dataset.identical(truth.drop_attrs(deep=False))  # those of the file as a whole have no place
        field = max(truth.data_vars.values(), key=lambda variable: variable.size).name
        assert dataset[field].mean().identical(truth[field].mean())


# -- what is read ----------------------------------------------------------------------------------

SELECTIONS = [
    {"time": 3, "y": 4, "x": 5},
    {"time": -1},
    {"time": slice(3, 30, 7), "x": slice(None, None, -1)},
    {"x": slice(40, 5, -9), "y": slice(5, 5)},
    {"time": [0, 39]},
    {"time": [39, 0, 39], "y": 3, "x": [0, 49]},
    {"time": [5, 6, 7], "y": [1, 29], "x": [0, 20, -1]},
    {"time": [], "x": [3]},
    {"y": np.arange(30) % 13 == 0},
    {"time": ("p", [0, 39, 20]), "x": ("p", [49, 0, -50])},
    {"time": ("p", [0, 39, 20]), "y": ("p", [29, 0, 1]), "x": ("p", [49, 0, 20])},
    {"y": (("p", "q"), [[0, 29], [3, 4]]), "x": (("p", "q"), [[49, 0], [0, 49]])},
    {"y": ("p", [29, 0]), "x": ("q", [49, 0, 7])},
    {"time": ("p", [39, 0]), "y": 3, "x": slice(3, 9, 2)},
    {"time": ("p", []), "x": ("p", [])},
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_selections_are_those_of_numpy(running, selection) -> None:
    selection = {
        name: xr.Variable(part[0], np.array(part[1], int)) if isinstance(part, tuple) else part
        for name, part in selection.items()
    }
    for lazy in (opened(running, "cube"), opened(running, "cube", chunks={"time": 20})):
        assert lazy.isel(selection).load().identical(TRUTH.isel(selection).load())


def test_a_selection_of_a_selection_is_read_at_once(running) -> None:
    lazy = opened(running, "cube/field.b2nd").field
    truth = TRUTH.field.drop_vars(["time", "x"])
    assert lazy[::2][3:, [0, 29]][..., 5].identical(truth[::2][3:, [0, 29]][..., 5])


def test_opening_moves_metadata_only_and_points_move_their_blocks(running, tmp_path) -> None:
    with (
        running_cluster(Cluster(tmp_path, {"foo": running.cluster.roots["foo"]})) as fresh,
        opened(fresh, "cube/field.b2nd") as dataset,
    ):
        assert moved(fresh) < 5_000
        before, block = moved(fresh), 5 * 5 * 5 * 2
        far = {name: xr.Variable("p", [0, TRUTH.sizes[name] - 1]) for name in ("time", "y", "x")}
        assert dataset.field.isel(far).values.tolist() == TRUTH.field.isel(far).values.tolist()
        chunk = 10 * 15 * 25 * 2
        assert moved(fresh) - before < 2 * chunk + 20 * block
        before = moved(fresh)
        assert opened(fresh, "cube/field.b2nd").isel(far).load() is not None
        assert moved(fresh) == before


def test_points_that_are_too_many_for_one_answer_are_read_as_a_box(running, monkeypatch) -> None:
    monkeypatch.setattr("caterva2.source.slices.HELD_BYTES", 1000)
    with caterva2.connect(running.url) as client, pytest.raises(TooLarge):
        client["foo/cube/field.b2nd"][[0, 39]]
    lazy = opened(running, "cube/field.b2nd").field
    assert np.array_equal(lazy[[0, 39]].values, FIELD[[0, 39]])


# -- versions, other processes ---------------------------------------------------------------------


@pytest.fixture
def changing(tmp_path) -> Iterator[tuple[Path, RunningCluster]]:
    root = tmp_path / "root"
    root.mkdir()
    write_array(root / "x.b2nd", np.zeros((40, 40)), chunks=(10, 10))
    with running_cluster(Cluster(tmp_path / "state", {"foo": root})) as running:
        yield root, running


def replace(root: Path, running: RunningCluster) -> None:
    before = caterva2.open(f"{running.url}/data/foo/x.b2nd").etag
    write_array(root / "x.b2nd", np.random.default_rng(1).random((40, 40)), chunks=(10, 10))
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: entries["x.b2nd"].etag != before)


def test_a_dataset_stays_at_its_version(changing) -> None:
    root, running = changing
    lazy = opened(running, "x.b2nd")
    chunked = opened(running, "x.b2nd", chunks={})
    replace(root, running)
    for old in (lazy, chunked):
        with pytest.raises(Changed):
            old.load()
    assert opened(running, "x.b2nd").x.values.any()


def test_what_was_opened_has_names_for_dask_by_its_version(changing) -> None:
    root, running = changing

    def names(what: str) -> set[str]:
        given = caterva2.open(f"{running.url}/data/foo/{what}")
        return set(xr.open_dataset(given, engine="caterva2", chunks={}).__dask_graph__().layers)

    one = names("x.b2nd")
    assert names("x.b2nd") == one
    replace(root, running)
    assert not {name for name in names("x.b2nd") if "open_dataset" in name} & one


def test_refreshing_the_array_that_was_given_leaves_the_dataset_where_it_is(changing) -> None:
    root, running = changing
    array = caterva2.open(f"{running.url}/data/foo/x.b2nd")
    dataset = xr.open_dataset(array, engine="caterva2")
    replace(root, running)
    assert array.refresh()
    assert array[...].any()
    with pytest.raises(Changed):
        dataset.load()


def test_pickles_are_read_in_other_processes_with_the_token_that_is_configured_there(tmp_path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_array(root / "x.b2nd", np.arange(6).reshape(2, 3))
    token = "a-token-of-the-group"
    with running_cluster(Cluster(tmp_path / "state", {"foo": root}, token=Token(token))) as running:
        dataset = opened(running, "x.b2nd", token=token)
        pickled = pickle.dumps(dataset)
        assert token.encode() not in pickled
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).x.values.sum())"
        for environment, output in (({}, b""), ({"CATERVA2_TOKEN": token}, b"15\n")):
            done = subprocess.run(
                [sys.executable, "-c", code],
                input=pickled,
                capture_output=True,
                env={"PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)} | environment,
                check=False,
            )
            assert done.stdout == output
            assert environment or b"Unauthorized" in done.stderr


def test_chunks_of_dask_are_those_of_the_array(running) -> None:
    dataset = opened(running, "cube", chunks={})
    assert dataset.field.chunksizes == {"time": (10,) * 4, "y": (15,) * 2, "x": (25,) * 2}
    with dask.config.set(scheduler="threads"):
        assert dataset.field.mean("time").load().equals(TRUTH.field.mean("time"))


async def test_variables_can_be_loaded_with_await(running) -> None:
    dataset = opened(running, "cube")
    first, second = await asyncio.gather(
        dataset.field.isel(time=[0, 39]).load_async(), dataset.isel(time=3).load_async()
    )
    assert first.identical(TRUTH.field.isel(time=[0, 39]))
    assert second.identical(TRUTH.isel(time=3))


def test_several_urls_are_one_dataset(running) -> None:
    urls = [f"{running.url}/data/foo/cube/{name}.b2nd" for name in ("field", "mask")]
    for parallel in (False, True):
        with xr.open_mfdataset(urls, engine="caterva2", parallel=parallel) as dataset:
            assert dataset.load().identical(TRUTH.drop_vars(["time", "x"]))


# -- what cannot be opened -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("", Unsupported, "has several roots: name one, as in caterva2://host/root"),
        ("/data/foo", NotFound, "there is no array in 'foo' itself: open 'cf' in it, or use open_datatree"),
        ("/data/foo/nothing", NotFound, "nothing"),
        ("/data/foo/cube/notes.txt", Unsupported, "notes.txt.* is not an array, a directory or a root"),
        ("/data/foo/cube#x", InvalidPath, "fragment"),
    ],
)
def test_what_cannot_be_opened_says_why(running, path, error, message) -> None:
    with pytest.raises(error, match=message):
        xr.open_dataset(running.url + path, engine="caterva2")


def test_an_array_is_no_tree(running) -> None:
    with pytest.raises(Unsupported, match="is an array: open it with open_dataset"):
        xr.open_datatree(f"{running.url}/data/foo/cube/mask.b2nd", engine="caterva2")


def test_variables_that_are_dropped_are_not_asked_for(running) -> None:
    dataset = opened(running, "cube", drop_variables=iter(["mask", "time"]))
    assert dataset.identical(TRUTH.drop_vars(["mask", "time"]))
    assert "field" not in opened(running, "cube", drop_variables="field")


def test_xarray_finds_the_backend_and_it_knows_its_urls() -> None:
    assert isinstance(xr.backends.list_engines()["caterva2"], Caterva2Backend)
    guess = Caterva2Backend().guess_can_open
    assert guess("caterva2://host/foo")
    assert guess("caterva2s://host:1234/foo/x.b2nd")
    assert guess("http://host/data/foo/x.b2nd?version=abc")
    assert not guess("http://host/data/foo/x.nc")
    assert not guess("http://host/x.b2nd")
    assert not guess("foo/x.b2nd")
    assert not guess("ftp://host/x.b2nd")
    assert not guess(b"CDF")
