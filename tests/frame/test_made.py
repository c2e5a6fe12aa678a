import random
from contextlib import suppress

import numpy as np
import pytest

from caterva2.errors import Corrupt
from caterva2.frame.made import BLOCK_BYTES, LEVELS, chunk_of_array, read_chunk_into
from caterva2.frame.write import write_array
from caterva2.model.path import DatasetPath
from caterva2.testing.origin import MemoryOrigin

PATH = DatasetPath("foo", "a.b2nd")


@pytest.fixture
def head(tmp_path):
    write_array(tmp_path / "a.b2nd", np.arange(12))
    return MemoryOrigin({PATH: (tmp_path / "a.b2nd").read_bytes()})._head(PATH)


ARRAYS = [
    np.array(7.5),
    np.arange(24, dtype=">i2").reshape(2, 3, 4),
    np.arange(1000, dtype="f4")[::-3],
    np.asfortranarray(np.random.default_rng(1).normal(size=(30, 40))),
    np.array([(1, b"ab"), (2, b"c")], dtype=[("a", "i4"), ("b", "S300")]),
    np.frombuffer(random.Random(1).randbytes(3 * BLOCK_BYTES + 5), np.uint8),
    np.array(["é", "longer"]),
    np.array([True, False]),
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str} {array.shape}")
def test_elements_come_back(head, array, level):
    out = np.empty(array.shape, array.dtype)
    read_chunk_into(chunk_of_array(head, array, level), out)
    np.testing.assert_array_equal(out, array)


def test_into_a_part_of_an_array(head):
    whole = np.zeros((6, 8), np.int64)
    part = np.arange(12).reshape(3, 4)
    read_chunk_into(chunk_of_array(head, part, 1), whole[1:7:2, 2:6])
    np.testing.assert_array_equal(whole[1:7:2, 2:6], part)
    assert np.count_nonzero(whole) == 11


def test_harder_is_smaller(head):
    array = np.round(np.sin(np.arange(1 << 20) / 300), 3).astype("f4")
    sizes = [len(chunk_of_array(head, array, level)) for level in LEVELS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < array.nbytes / 4


@pytest.mark.parametrize("spoil", [lambda c: c[:-1], lambda c: c + b"!", lambda c: b"", lambda c: c[:20]])
def test_what_is_no_such_chunk_is_refused(head, spoil):
    chunk = chunk_of_array(head, np.arange(1000), 1)
    with pytest.raises(Corrupt):
        read_chunk_into(spoil(chunk), np.empty(1000, np.int64))


def test_one_of_another_size_is_refused(head):
    with pytest.raises(Corrupt, match="7,992"):
        read_chunk_into(chunk_of_array(head, np.arange(999), 1), np.empty(1000, np.int64))


def test_flipped_bits_never_crash(head):
    chunk = chunk_of_array(head, np.arange(1000) ** 2 % 977, 1)
    source, out = random.Random(3), np.empty(1000, np.int64)
    for _ in range(300):
        at, bit = source.randrange(len(chunk)), 1 << source.randrange(8)
        flipped = chunk[:at] + bytes([chunk[at] ^ bit]) + chunk[at + 1 :]
        with suppress(Corrupt):
            read_chunk_into(flipped, out)
