import blosc2
import numpy as np
import pytest

from caterva2.errors import Corrupt
from caterva2.frame.geometry import array_geometry, geometry_of, grid_of, plain_pipeline, typesize_of
from caterva2.frame.layout import header_size, parse_header


def header_of(array, **changes):
    raw = array.to_cframe()
    raw = raw[: header_size(raw)]
    for at, data in changes.values():
        raw = raw[:at] + data + raw[at + len(data) :]
    return parse_header(raw)


def test_geometry_of_an_array(store):
    head = store(blosc2.asarray(np.zeros((10, 100)) + 1, chunks=(4, 30), blocks=(2, 7))).head
    assert grid_of(head).chunks == (4, 30)
    assert geometry_of(head) is geometry_of(head)
    assert geometry_of(head).blocksize == 2 * 7 * 8
    assert typesize_of(head) == 8


def test_files_are_bytes(store):
    head = store(b"12345", "x.bin").head
    assert (grid_of(head).shape, typesize_of(head)) == ((5,), 1)


@pytest.mark.parametrize("change", [(58, b"\0\0\0\x08"), (30, (80).to_bytes(8, "big"))], ids=str)
def test_a_header_that_contradicts_the_metalayer_is_corrupt(change):
    array = blosc2.asarray(np.arange(1000).reshape(10, 100), chunks=(4, 30), blocks=(2, 7))
    array_geometry(header_of(array))
    with pytest.raises(Corrupt):
        array_geometry(header_of(array, change=change))


@pytest.mark.parametrize(
    ("codec", "number", "meta", "plain"),
    [
        (5, 1, 0, True),
        (5, 35, 8, True),
        (5, 35, 0, False),
        (5, 32, 4, False),
        (33, 0, 0, False),
        (200, 0, 0, False),
    ],
)
def test_pipelines_that_need_no_frame(codec, number, meta, plain):
    filters, filters_meta = bytes([0, 0, 0, 0, 0, number]), bytes([0, 0, 0, 0, 0, meta])
    assert plain_pipeline(codec, filters, filters_meta) is plain
