import io

import blosc2
import numpy as np
import pytest

from caterva2.errors import Unsupported
from caterva2.frame.encode import cframe_of_array, cframe_of_items, npy_parts

DTYPES = [
    "?", "i1", "<i2", "u8", "f2", "f4", ">f8", "c16", "S5", "U4", ">U3", "M8[ns]", "m8[s]", "S300",
    [("a", "<i4"), ("b", "S3"), ("c", "f8", (2,))],
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7, 5), (300, 200)], ids=str)
def test_arrays_round_trip(store, dtype, shape):
    array = np.zeros(shape, dtype)
    array.reshape(-1).view("u1")[:] = np.arange(array.nbytes) % (2 if array.dtype.kind == "b" else 100)
    if array.dtype.kind == "U":
        array = np.full(shape, "añ", dtype)
    frame = cframe_of_array(array)
    found = blosc2.ndarray_from_cframe(frame)
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    # blosc2 itself cannot read elements of more than 255 bytes
    values = np.asarray(found[...] if array.itemsize <= 255 else store(frame)[...])
    assert values.reshape(shape).astype(array.dtype, copy=False).tobytes() == array.tobytes()
    header, data = npy_parts(array)
    loaded = np.load(io.BytesIO(header + bytes(data)))
    assert (loaded.shape, loaded.dtype, loaded.tobytes()) == (array.shape, array.dtype, array.tobytes())


@pytest.mark.parametrize(
    "dtype", ["i1", "<i2", "f4", ">f8", "c16", "S5", [("a", "<i4"), ("b", "S3")]], ids=str
)
def test_small_arrays_of_the_same_kind_are_not_taken_for_each_other(dtype):
    for shape in ((), (3,), (10, 10, 4)):
        for value in (0, 1, 255, 0):
            array = np.empty(shape, dtype)
            array.reshape(-1).view("u1")[:] = value
            found = np.asarray(blosc2.ndarray_from_cframe(cframe_of_array(array))[...])
            assert found.reshape(shape).astype(array.dtype, copy=False).tobytes() == array.tobytes()


def test_views_are_written_in_c_order():
    array = np.arange(60).reshape(3, 4, 5).transpose(2, 0, 1)[::-1]
    assert np.array_equal(blosc2.ndarray_from_cframe(cframe_of_array(array))[...], array)
    header, data = npy_parts(array)
    assert np.array_equal(np.load(io.BytesIO(header + bytes(data))), array)


@pytest.mark.parametrize("typesize", [1, 4, 7, 300])
@pytest.mark.parametrize("count", [0, 1, 1000, 50_000])
def test_items_round_trip(typesize, count):
    data = (np.arange(typesize * count) % 251).astype("u1").tobytes()
    assert blosc2.schunk_from_cframe(cframe_of_items(data, typesize))[:] == data


def test_answers_are_smaller_than_the_data():
    array = np.cumsum(np.random.default_rng(1).integers(-3, 4, (500, 500)), axis=0)
    assert len(cframe_of_array(array)) < array.nbytes / 4
    assert len(cframe_of_items(array.tobytes(), 8)) < array.nbytes / 4


def test_objects_are_refused():
    with pytest.raises(Unsupported):
        cframe_of_array(np.array([{}, None]))
    with pytest.raises(Unsupported):
        npy_parts(np.array([{}, None]))
