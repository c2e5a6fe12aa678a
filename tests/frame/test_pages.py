"""Pages say where each byte of a file is, whatever was done to it."""

from dataclasses import replace

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caterva2.errors import Corrupt
from caterva2.frame.pages import chunk_stops, index_offsets, make_page
from caterva2.model.extents import FILE_EXTENT_BYTES, ChunkKind, Fixed, digest
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import parse_path

RNG = np.random.default_rng(1)
IMPOSSIBLE_OFFSETS = [1 << 40, (5 << 56) - (1 << 63), 10**6]
NITEMS = 100_000  # so that chunks that do not compress are of blocks, in bytes 8 times as many


def chunk_data(kind):
    if kind == "random":
        return RNG.integers(0, 256, NITEMS * 8, "u1").tobytes()
    if kind == "text":
        return (np.arange(NITEMS) // 3).tobytes()
    return bytes(NITEMS * 8)


def changed(schunk, steps):
    """Do to a super-chunk what its owners may do; return what it holds then."""
    data = [chunk_data("random"), chunk_data("text")]
    for piece in data:
        schunk.append_data(piece)
    for verb, where, kind in steps:
        at = where % (len(data) or 1)
        if verb == "append":
            data.append(chunk_data(kind))
            schunk.append_data(data[-1])
        elif verb == "update" and data:
            data[at] = chunk_data(kind)
            schunk.update_data(at, data[at], copy=True)
        elif verb == "insert":
            data.insert(at, chunk_data(kind))
            schunk.insert_data(at, data[at], copy=True)
        elif verb == "delete" and data:
            del data[at]
            schunk.delete_chunk(at)
        elif verb == "vlmeta":
            schunk.vlmeta[f"key{at}"] = kind * (1 + where * 100)
    return b"".join(data)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "update", "insert", "delete", "vlmeta"]),
        st.integers(0, 9),
        st.sampled_from(["random", "text", "zeros"]),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_extents_are_the_file_after_any_change(store, frame_dir, steps):
    name = str(frame_dir / "changed.b2frame")
    blosc2.remove_urlpath(name)
    schunk = blosc2.SChunk(
        chunksize=NITEMS * 8,
        urlpath=name,
        contiguous=True,
        mode="w",
        cparams={"typesize": 8, "blocksize": 65536},
    )
    data = changed(schunk, steps)
    stored = store((frame_dir / "changed.b2frame").read_bytes(), "x.b2frame")
    stored.assert_covered()
    assert stored[:].tobytes() == data
    assert stored.head.nchunks == schunk.nchunks
    for page in stored.pages():
        assert Page.decode(page.encode(), stored.head, page.number).encode() == page.encode()
    for extent in stored.extents():
        assert digest(stored.source.pread(extent.offset, extent.size)) == extent.digest


def test_extents_are_the_file_after_an_array_grows_and_shrinks(store, frame_dir):
    name = str(frame_dir / "grown.b2nd")
    truth = RNG.integers(0, 1 << 30, (300, 400))
    array = blosc2.asarray(truth, chunks=(100, 400), blocks=(20, 100), urlpath=name, mode="w")
    for rows in (420, 250, 333):
        array.resize((rows, 400))
        array[rows - 50 :] = 7
        array.schunk.vlmeta["rows"] = rows
        stored = store((frame_dir / "grown.b2nd").read_bytes())
        stored.assert_covered()
        assert np.array_equal(stored[...], array[...])


def test_dead_bytes_belong_to_somebody(store):
    """Space that writers left, between chunks and before them, travels as well."""
    truth = RNG.integers(0, 1 << 30, (60, 70))
    raw = blosc2.asarray(truth, chunks=(20, 70), blocks=(20, 70)).to_cframe()
    head = store(raw).head
    header_bytes = len(head.header)
    index = head.fixed_extent(Fixed.INDEX)
    offsets = index_offsets(head, raw[index.offset : index.stop])
    moved, chunks = [], b""
    for offset, stop in zip(offsets, chunk_stops(offsets, index.offset), strict=True):
        chunks += b"dead" * 5
        moved.append(len(chunks))
        chunks += raw[offset:stop]
    chunks += b"more"
    new_index = blosc2.compress2(np.array(moved, "i8"), typesize=8)
    body = bytearray(raw[:header_bytes] + chunks + new_index + raw[index.stop :])
    body[16:24] = len(body).to_bytes(8, "big")
    body[39:47] = len(chunks).to_bytes(8, "big")
    stored = store(bytes(body))
    stored.assert_covered()
    assert stored.head.fixed_extent(Fixed.GAP).size == 20
    (page,) = stored.pages()
    assert [int(slack) for slack in page.slacks] == [20, 20, 4]
    assert np.array_equal(stored[...], truth)


def test_offsets_are_those_of_blosc2(store):
    array = blosc2.asarray(np.arange(10_000).reshape(100, 100), chunks=(30, 30), blocks=(10, 10))
    stored = store(array)
    (page,) = stored.pages()
    for n in range(stored.head.nchunks):
        extent = page.chunk_head(n)
        assert stored.source.pread(extent.offset, extent.size) == array.schunk.get_chunk(n)


@pytest.mark.parametrize("size", [0, 1, FILE_EXTENT_BYTES, 40 * 1024 * 1024 + 1])
def test_files_are_extents_of_equal_size(store, size):
    stored = store(RNG.integers(0, 256, size, "u1").tobytes(), "x.bin")
    stored.assert_covered()
    assert stored.head.npages == -(-size // (32 * 1024 * 1024))
    pages = stored.pages()
    assert all(
        Page.decode(page.encode(), stored.head, page.number).encode() == page.encode() for page in pages
    )


def test_chunks_with_other_parameters_than_the_frame_stay_whole(store):
    schunk = blosc2.SChunk(chunksize=NITEMS * 8, cparams={"typesize": 8, "blocksize": 65536})
    data = chunk_data("random")
    schunk.append_data(data)
    other = blosc2.compress2(
        data,
        typesize=8,
        blocksize=65536,
        filters=[blosc2.Filter.DELTA],
        filters_meta=[0],
        codec=blosc2.Codec.LZ4,
    )
    schunk.append_data(data)
    schunk.update_chunk(1, other)
    stored = store(schunk, "x.b2frame")
    (page,) = stored.pages()
    assert page.kind(0) == ChunkKind.BLOCKS
    assert stored[:].tobytes() == data * 2
    assert stored[NITEMS * 8 + 100_000 : NITEMS * 8 + 200_000].tobytes() == data[100_000:200_000]


def test_there_is_no_such_page(store):
    stored = store(b"123", "x.bin")
    for number in (-1, 1):
        with pytest.raises(IndexError):
            make_page(stored.source.pread, stored.head, number)


def test_a_chunk_longer_than_its_room_is_corrupt(store):
    raw = bytearray(blosc2.asarray(np.arange(1000), chunks=(100,), blocks=(50,)).to_cframe())
    at = int.from_bytes(raw[11:15], "big")
    raw[at + 12 : at + 16] = (10**6).to_bytes(4, "little")
    stored = store(bytes(raw))
    with pytest.raises(Corrupt, match="longer"):
        stored.pages()


@pytest.mark.parametrize("index", [b"", b"junk" * 20, bytes(100)])
def test_a_malformed_index_is_corrupt(store, index):
    head = store(blosc2.asarray(np.arange(1000), chunks=(100,), blocks=(50,))).head
    with pytest.raises(Corrupt):
        index_offsets(head, index)


@pytest.mark.parametrize(
    "offsets",
    [[0, 0], [0, 10], *([*before, last] for before in ([], [0]) for last in IMPOSSIBLE_OFFSETS)],
    ids=str,
)
def test_an_impossible_index_is_corrupt(store, offsets):
    values = RNG.integers(0, 99, 100 * len(offsets))
    head = store(blosc2.asarray(values, chunks=(100,), blocks=(50,))).head
    with pytest.raises(Corrupt):
        index_offsets(head, blosc2.compress2(np.array(offsets, "i8"), typesize=8))


def test_the_index_of_a_file_is_corrupt(store):
    head = store(b"123", "x.bin").head
    assert isinstance(head, Head)
    with pytest.raises(Corrupt):
        index_offsets(replace(head, path=parse_path("r/y")), b"")
