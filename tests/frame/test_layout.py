import blosc2
import numpy as np
import pytest

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.layout import MAX_CHUNKS, header_size, metalayers, parse_header, trailer_size

FRAME = blosc2.asarray(
    np.arange(1000).reshape(10, 100), chunks=(4, 30), blocks=(2, 7), meta={"own": [1, 2]}
).to_cframe()
HEADER = FRAME[: header_size(FRAME)]


def patched(at, data):
    return HEADER[:at] + data + HEADER[at + len(data) :]


def test_the_header_is_that_of_blosc2():
    header = parse_header(HEADER)
    array = blosc2.ndarray_from_cframe(FRAME)
    assert (header.frame_bytes, header.header_bytes) == (len(FRAME), len(HEADER))
    assert (header.nbytes, header.cbytes) == (array.schunk.nbytes, array.schunk.cbytes)
    assert (header.typesize, header.chunksize) == (8, array.schunk.chunksize)
    assert header.nchunks == array.schunk.nchunks
    assert set(header.metalayers) == {"b2nd", "own"}
    assert header.chunk_nbytes(0) == header.chunksize
    assert trailer_size(FRAME[-25:], header) == len(FRAME) - header.index_start - 32 - _index_data(header)


def _index_data(header):
    at = header.index_start
    return int.from_bytes(FRAME[at + 12 : at + 16], "little") - 32


@pytest.mark.parametrize("size", [0, 10, 86, len(HEADER) - 1, len(HEADER) + 1])
def test_headers_of_another_length_are_corrupt(size):
    with pytest.raises(Corrupt):
        parse_header((HEADER + b"\0")[:size])


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (2, b"x"),
        (11, b"\0\0\0\1"),
        (11, b"\xff\xff\xff\xff"),
        (16, b"\0" * 8),
        (30, b"\xff" * 8),
        (39, b"\xff" * 8),
        (39, b"\x7f" * 8),
        (48, b"\0" * 4),
        (58, b"\0" * 4),
        (24, b"\0"),
        (87, b"\0"),
        (91, b"\xc0"),
    ],
    ids=str,
)
def test_malformed_headers_are_corrupt(at, data):
    with pytest.raises(Corrupt):
        parse_header(patched(at, data))


@pytest.mark.parametrize(
    ("at", "data"),
    [(11, b"\x7f\xff\xff\xff"), (25, b"\x1f"), (25, b"\x22"), (26, b"\x01"), (30, b"\x7f" * 8)],
    ids=str,
)
def test_what_is_not_for_us_is_unsupported(at, data):
    with pytest.raises(Unsupported):
        parse_header(patched(at, data))


@pytest.mark.parametrize(
    ("flag", "what"), [(0x40, "variable-length chunks"), (0x80, "variable-length blocks")]
)
def test_unequal_chunks_are_named(flag, what):
    assert parse_header(patched(25, bytes([HEADER[25] | flag]))).variable == what


def test_the_most_chunks():
    nbytes = (MAX_CHUNKS + 1) * parse_header(HEADER).chunksize
    with pytest.raises(Unsupported, match="chunks"):
        parse_header(patched(30, nbytes.to_bytes(8, "big")))


@pytest.mark.parametrize("end", [b"", bytes(25), b"\xce" * 25])
def test_malformed_trailers_are_corrupt(end):
    with pytest.raises(Corrupt):
        trailer_size(end, parse_header(HEADER))


@pytest.mark.parametrize("size", [0, 24, 10**6])
def test_trailers_of_an_impossible_size_are_corrupt(size):
    end = FRAME[-25:]
    with pytest.raises(Corrupt):
        trailer_size(end[:3] + size.to_bytes(4, "big") + end[7:], parse_header(HEADER))


def test_more_metalayers_than_there_may_be_are_corrupt():
    with pytest.raises(Corrupt):
        metalayers(HEADER, 87, 1)
