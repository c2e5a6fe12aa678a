import blosc2
import numpy as np
import pytest

from caterva2.errors import Corrupt
from caterva2.frame.chunk import Special, block_starts, compact_chunk, parse_chunk_header, special_chunk


def made(clevel=5, nbytes=100_000, blocksize=8000, **params):
    data = (np.arange(nbytes // 4) // 7).astype("i4").tobytes()
    chunk = blosc2.compress2(
        data, codec=blosc2.Codec.ZSTD, clevel=clevel, typesize=4, blocksize=blocksize, nthreads=1, **params
    )
    return data, chunk


def split(header, chunk, starts, block):
    stop = min([int(start) for start in starts if start > starts[block]], default=header.cbytes)
    return chunk[starts[block] : stop]


@pytest.mark.parametrize("clevel", [0, 5])
@pytest.mark.parametrize("splitmode", list(blosc2.SplitMode))
@pytest.mark.parametrize("blocks", [[0], [3], [12], [11, 12], [0, 5, 12], [2, 3, 4]])
def test_a_compact_chunk_has_those_blocks_alone(clevel, splitmode, blocks):
    data, chunk = made(clevel, splitmode=splitmode)
    header = parse_chunk_header(chunk)
    assert (header.nbytes, header.blocksize, header.nblocks) == (100_000, 8000, 13)  # the last one is short
    assert header.has_blocks
    assert header.memcpyed == (clevel == 0)
    starts = block_starts(header, chunk)
    small = compact_chunk(
        header, chunk[: starts.min()], blocks, [split(header, chunk, starts, block) for block in blocks]
    )
    want = b"".join(data[block * 8000 : (block + 1) * 8000] for block in blocks)
    assert blosc2.decompress2(small) == want


@pytest.mark.parametrize("special", [Special.ZEROS, Special.NANS, Special.UNINIT])
def test_a_special_chunk_is_one_for_blosc2(special):
    chunk = special_chunk(special, 8, 80_000, 16_000)
    header = parse_chunk_header(chunk)
    assert (header.special, header.nbytes, header.cbytes, len(chunk)) == (special, 80_000, 32, 32)
    assert not header.has_blocks
    found = np.frombuffer(blosc2.decompress2(chunk), "f8")
    assert len(found) == 10_000
    if special != Special.UNINIT:
        assert np.array_equal(
            found, np.full(10_000, np.nan if special == Special.NANS else 0.0), equal_nan=True
        )


def test_block_starts_that_make_no_sense_are_none():
    _, chunk = made()
    header = parse_chunk_header(chunk)
    assert len(block_starts(header, chunk)) == 13
    assert block_starts(header, chunk[:40]) is None
    for start in (0, 40, header.cbytes, -5, int.from_bytes(chunk[36:40], "little")):
        bad = chunk[:32] + start.to_bytes(4, "little", signed=True) + chunk[36:]
        assert block_starts(header, bad) is None


@pytest.mark.parametrize(
    "change",
    [{3: 0}, {4: 255, 7: 255}, {8: 0, 9: 0, 10: 0}, {11: 255}, {12: 1, 13: 0, 14: 0}, {31: 0x50}, {31: 0x08}],
    ids=str,
)
def test_impossible_headers_are_corrupt(change):
    chunk = bytearray(made()[1])
    for at, value in change.items():
        chunk[at] = value
    with pytest.raises(Corrupt):
        parse_chunk_header(bytes(chunk))


def test_short_headers_are_corrupt():
    with pytest.raises(Corrupt):
        parse_chunk_header(made()[1][:15])
