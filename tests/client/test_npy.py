"""``.npy`` from a stream: what numpy writes, and what nobody should send."""

from __future__ import annotations

import io

import numpy as np
import pytest

from caterva2.client.npy import read_array, read_header, read_into
from caterva2.errors import Caterva2Error, Unavailable


class Stream:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read_exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise Unavailable("broken off")
        return data

    def read_into(self, target: memoryview) -> None:
        target[:] = self.read_exactly(len(target))


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


ARRAYS = [
    np.arange(6, dtype=np.int16).reshape(2, 3),
    np.array(3.5),
    np.zeros((0, 4)),
    np.array(["2020-01-01", "NaT"], "M8[D]"),
    np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i2", "i8"], "offsets": [0, 8]})),
    np.array([b"ab"], "S5"),
    np.array(["é"], "U2"),
    np.zeros(3, "V7"),
    np.zeros(2, [("é", "i4", (2, 2))]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_what_numpy_writes_is_read(array) -> None:
    got = read_array(Stream(npy(array)))
    assert (got.shape, got.dtype, got.tobytes()) == (array.shape, array.dtype, array.tobytes())
    target = np.empty_like(array)
    read_into(Stream(npy(array)), target)
    assert target.tobytes() == array.tobytes()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_of_the_header(version) -> None:
    assert read_header(Stream(npy(np.zeros((2, 3), "i4"), version))) == ((2, 3), np.dtype("i4"))


def test_a_target_that_is_not_contiguous_is_filled() -> None:
    whole = np.zeros((4, 4), np.int32)
    read_into(Stream(npy(np.arange(4, dtype=np.int32).reshape(2, 2))), whole[1:3, 1:3])
    assert np.array_equal(whole[1:3, 1:3], [[0, 1], [2, 3]])
    assert whole.sum() == 6


def test_another_shape_or_dtype_than_wanted_is_refused() -> None:
    for target in (np.empty((3, 2), np.int16), np.empty((2, 3), np.int32), np.empty(6, np.int16)):
        with pytest.raises(Caterva2Error, match="was asked for"):
            read_into(Stream(npy(ARRAYS[0])), target)


def header(text: bytes, version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"<html><body>",
        b"\x93NUMPY\x07\x00" + b"\0" * 100,
        header(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
        header(b"{'descr': '<i4', 'fortran_order': True, 'shape': (2, 2)}"),
        header(b"{'descr': '<i4', 'fortran_order': False, 'shape': (-2,)}"),
        header(b"{'descr': '<i4', 'fortran_order': False, 'shape': [2]}"),
        header(b"{'descr': '<i4', 'fortran_order': False, 'shape': 2}"),
        header(b"{'descr': 'nope', 'fortran_order': False, 'shape': (2,)}"),
        header(b"{'shape': (2,)}"),
        header(b"__import__('os').system('true')"),
        header(b"(" * 5000),
        header(b"{'descr': '<i4', 'fortran_order': False, 'shape': (1099511627776,)}"),
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
    ],
)
def test_what_is_no_array_of_plain_elements_is_refused(data) -> None:
    with pytest.raises(Caterva2Error):
        read_array(Stream(data))


@pytest.mark.parametrize("size", [0, 3, 9, 50, 127])
def test_an_answer_that_is_cut_is_no_array(size) -> None:
    with pytest.raises(Unavailable):
        read_array(Stream(npy(np.arange(3))[:size]))
