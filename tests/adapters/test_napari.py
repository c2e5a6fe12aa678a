"""What napari is given to draw, through the manifest that it finds; napari itself needs a screen."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from caterva2.adapters.napari import get_reader, read
from caterva2.errors import NotFound, Unsupported
from caterva2.frame.write import write_array
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # npe2 0.10 declares its models as pydantic 1 had it
    import npe2

FIELD = np.random.default_rng(5).integers(0, 255, (40, 60, 50), np.uint8)
LEVELS = [FIELD, FIELD[::2, ::2, ::2], FIELD[::4, ::4, ::4]]  # the last of 10, 15 and 13


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[RunningCluster]:
    root = tmp_path_factory.mktemp("root")
    for name in ("pyramid", "several", "none"):
        (root / name).mkdir()
    attrs = {"_ARRAY_DIMENSIONS": ["z", "y", "x"], "units": "K"}
    write_array(root / "field.b2nd", FIELD, chunks=(10, 20, 25), blocks=(5, 10, 5), attrs=attrs)
    for number, level in enumerate(LEVELS):
        write_array(root / "pyramid" / f"{number}.b2nd", level, chunks=(10, 10, 10))
    write_array(root / "several" / "a.b2nd", FIELD)
    write_array(root / "several" / "b.b2nd", FIELD[1:, :30])
    write_array(root / "several" / "c.b2nd", FIELD[0] > 3)
    write_array(root / "several" / "line.b2nd", FIELD[0, 0])
    write_array(root / "none" / "line.b2nd", FIELD[0, 0])
    write_array(root / "none" / "complex.b2nd", np.zeros((3, 3), complex))
    write_array(root / "none" / "empty.b2nd", np.zeros((3, 0)))
    (root / "none" / "text.txt").write_text("no array")
    with running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": root})) as running:
        yield running


@pytest.fixture
def url(running) -> str:
    return f"{running.url}/data/foo"


def test_the_manifest_is_valid_and_its_command_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "--imports", "caterva2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_napari_finds_the_reader_by_the_url(url) -> None:
    manager = npe2.PluginManager.instance()
    manager.discover()
    host = url.removeprefix("http://").removesuffix("/data/foo")
    for path in (f"{url}/field.b2nd", f"caterva2://{host}/foo/field.b2nd"):
        ((data, properties, kind),), reader = npe2.io_utils.read_get_reader([path], stack=False)
        assert (reader.plugin_name, kind) == ("caterva2", "image")
        assert (properties["name"], properties["axis_labels"]) == ("field", ("z", "y", "x"))
        assert properties["metadata"]["attrs"]["units"] == "K"
        assert np.array_equal(np.asarray(data[3, :, :]), FIELD[3])


def test_what_is_drawn_is_what_is_moved(running, url) -> None:
    stats = running.cluster.subscriber.origins.stats
    before = stats.bytes
    ((data, _, _),) = read(f"{url}/field.b2nd")
    assert (data.shape, data.dtype, data.ndim) == (FIELD.shape, FIELD.dtype, 3)
    assert stats.bytes - before < 8_000  # metadata
    before = stats.bytes
    assert np.array_equal(data[np.int64(7), slice(0, 60), slice(0, 50)], FIELD[7])
    assert stats.bytes - before < 1.2 * 10 * 60 * 50  # chunks are ten planes thick, and small: moved whole
    before = stats.bytes
    assert np.array_equal(data[8], FIELD[8])
    assert stats.bytes == before


def test_resolutions_of_an_array_are_one_layer(url) -> None:
    ((data, properties, kind),) = read(f"{url}/pyramid")
    assert (properties["name"], properties["multiscale"], kind) == ("pyramid", True, "image")
    assert [level.shape for level in data] == [level.shape for level in LEVELS]
    assert np.array_equal(data[2][...], LEVELS[2])


def test_a_plane_of_a_resolution_is_read_as_that(running, url) -> None:
    stats = running.cluster.subscriber.origins.stats
    ((data, _, _),) = read(f"{url}/pyramid")
    before = stats.bytes
    window = data[0][:, 0:60:1, 0:50:1]  # as napari does: what is seen, then the plane that is shown
    assert window.shape == (40, 60, 50)
    assert stats.bytes == before
    assert np.array_equal(np.asarray(window[np.int64(7)]), FIELD[7])
    assert stats.bytes - before < 1.2 * 10 * 60 * 50


@pytest.mark.parametrize("key", [(), ..., 3, (slice(30, 2, -7), 4), (..., slice(5, None, 3)), slice(9, 9)])
def test_views_select_as_numpy_does(url, key) -> None:
    ((data, _, _),) = read(f"{url}/pyramid")
    for view, truth in ((data[0][key], FIELD[key]), (data[0][::-1][key][-1:], FIELD[::-1][key][-1:])):
        assert (view.shape, view.ndim, view.size, view.dtype) == (
            truth.shape,
            truth.ndim,
            truth.size,
            truth.dtype,
        )
        assert np.array_equal(np.asarray(view), truth)
        assert len(view) == len(truth)
    assert np.asarray(data[0][3, 4, 5]) == FIELD[3, 4, 5]
    assert np.asarray(data[0], float).dtype == float
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(data[0], copy=False)


def test_other_arrays_of_a_directory_are_layers_each(url) -> None:
    layers = read(f"{url}/several/")
    assert [properties["name"] for _, properties, _ in layers] == ["a", "b", "c"]
    assert not any(properties["multiscale"] for _, properties, _ in layers)
    names = [properties["name"] for _, properties, _ in read(url)]
    assert names == ["field"]  # not those further below


def test_several_urls_are_layers_each(url) -> None:
    assert [
        properties["name"] for _, properties, _ in read([f"{url}/field.b2nd", f"{url}/several/c.b2nd"])
    ] == [
        "field",
        "c",
    ]


@pytest.mark.parametrize("path", ["none", "none/line.b2nd", "none/complex.b2nd", "none/text.txt"])
def test_what_cannot_be_drawn_says_so(url, path) -> None:
    with pytest.raises(Unsupported, match="has no array of numbers of two or more dimensions"):
        read(f"{url}/{path}")


def test_what_is_not_there_says_so(url) -> None:
    with pytest.raises(NotFound):
        read(f"{url}/nothing.b2nd")


def test_the_reader_takes_our_urls_only() -> None:
    for path in ("caterva2://host/foo", "http://host/data/foo/x.b2nd", ["caterva2://host/foo/x"] * 2):
        assert get_reader(path) is read
    for path in (
        "http://host/x.tif",
        "ftp://host/data/x",
        "caterva2://host",
        ["caterva2://h/foo", "s3://x"],
        [],
    ):
        assert get_reader(path) is None
