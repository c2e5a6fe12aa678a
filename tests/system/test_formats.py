"""Whatever Blosc2 stores, through publisher, wire, cache and client: right, or refused with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest

import caterva2
from caterva2.testing.cluster import Cluster, running_cluster

RANDOM = np.random.default_rng(7)

DTYPES = ["?", "i1", "u2", "<i4", ">i4", "u8", "f2", "f4", ">f8", "c8", "c16", "S7", "U5", "M8[us]", "m8[h]"]
RECORD = np.dtype([("id", "<i4"), ("name", "U4"), ("at", "M8[s]"), ("pos", "f4", (3,))])

CPARAMS = {
    "blosclz": {"codec": blosc2.Codec.BLOSCLZ},
    "lz4hc, bitshuffle": {"codec": blosc2.Codec.LZ4HC, "filters": [blosc2.Filter.BITSHUFFLE]},
    "zlib, no filter": {"codec": blosc2.Codec.ZLIB, "filters": [blosc2.Filter.NOFILTER]},
    "zstd, delta": {"codec": blosc2.Codec.ZSTD, "filters": [blosc2.Filter.DELTA]},
    "not compressed": {"clevel": 0},
    "truncated": {"filters": [blosc2.Filter.TRUNC_PREC], "filters_meta": [10]},
    "dictionary": {"codec": blosc2.Codec.ZSTD, "use_dict": True},
}


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.cumsum(RANDOM.integers(0, 9, shape), axis=-1)


def of_dtype(dtype: str | np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if np.dtype(dtype).names:
        array = np.zeros(shape, dtype)
        array["id"], array["pos"] = numbers(shape), RANDOM.random((*shape, 3))
        array["name"] = numbers(shape).astype("U4")
        return array
    kind = np.dtype(dtype).kind
    values = numbers(shape)
    return (values % (2 if kind == "b" else 100)).astype(dtype)


def write_all(root: Path) -> dict[str, np.ndarray]:
    truth: dict[str, np.ndarray] = {}

    def write(name: str, array: np.ndarray, **options) -> None:
        written = blosc2.asarray(np.asarray(array), urlpath=str(root / f"{name}.b2nd"), mode="w", **options)
        # what was given, since Blosc2's own reads of arrays with DELTA are wrong; of lossy ones what it reads
        truth[name] = written[:] if name == "truncated" else np.asarray(array)

    grid = {"chunks": (20, 30), "blocks": (7, 8)}
    for dtype in DTYPES:
        write(f"dtype {dtype}", of_dtype(dtype, (53, 61)), **grid)
    write("record", of_dtype(RECORD, (53, 61)), **grid)
    for name, cparams in CPARAMS.items():
        write(name, of_dtype("f4", (53, 61)), cparams=cparams, **grid)
    ndlz = {"codec": blosc2.Codec.NDLZ, "codec_meta": 4, "filters": [blosc2.Filter.NOFILTER]}
    write("ndlz", of_dtype("u1", (64, 64)), chunks=(32, 32), blocks=(16, 16), cparams=ndlz)
    write("large chunk", RANDOM.random((128, 600)), chunks=(128, 600), blocks=(16, 100))
    write("scalar", np.float64(-2.5))
    write("no rows", np.zeros((0, 5), "i4"))
    write("one", np.array([[[42]]]))
    for name, make in {"zeros": blosc2.zeros, "nans": blosc2.nans}.items():
        array = make((100, 90), dtype="f8", urlpath=str(root / f"{name}.b2nd"), mode="w", chunks=(30, 40))
        array[5:8, 50:60] = 1.25
        truth[name] = array[:]
    full = blosc2.full((100, 90), 7, dtype="i2", urlpath=str(root / "full.b2nd"), mode="w", chunks=(30, 40))
    truth["full"] = full[:]
    return truth


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Iterator[tuple[caterva2.Client, dict[str, np.ndarray]]]:
    root = tmp_path_factory.mktemp("root")
    truth = write_all(root)
    with (
        running_cluster(Cluster(tmp_path_factory.mktemp("state"), {"foo": root})) as running,
        caterva2.connect(running.url) as client,
    ):
        yield client, truth


def test_all_arrays_are_read_as_they_are(published) -> None:
    client, truth = published
    assert len(client["foo"]) == len(truth)
    for name, expected in truth.items():
        array = client[f"foo/{name}.b2nd"]
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype), name
        keys = [..., (0,) * array.ndim, (slice(None, None, -3),) * array.ndim]
        if array.size == 0:
            keys = [...]
        for key in keys:
            assert np.asarray(array[key]).tobytes() == np.asarray(expected[key]).tobytes(), (name, key)


def test_random_parts_are_right(published) -> None:
    client, truth = published
    for name in ("dtype <i4", "zstd, delta", "dictionary", "zeros", "large chunk", "record", "ndlz"):
        expected, array = truth[name], client[f"foo/{name}.b2nd"]
        for _ in range(10):
            start = [int(RANDOM.integers(0, n)) for n in array.shape]
            key = tuple(slice(a, a + int(RANDOM.integers(1, 40)), int(RANDOM.integers(1, 5))) for a in start)
            assert array[key].tobytes() == expected[key].tobytes(), (name, key)
