"""Every way in which Blosc2 stores an array, against numpy."""

import itertools
from dataclasses import replace

import blosc2
import numpy as np
import pytest

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame.decode import block_extents, decode_blocks, decode_stored
from caterva2.frame.geometry import dtype_of, grid_of, typesize_of
from caterva2.model.extents import ChunkKind
from caterva2.model.selection import select

CODECS = [blosc2.Codec.BLOSCLZ, blosc2.Codec.LZ4, blosc2.Codec.LZ4HC, blosc2.Codec.ZLIB, blosc2.Codec.ZSTD]
F = blosc2.Filter
PIPELINES = [
    [(F.NOFILTER, 0)],
    [(F.SHUFFLE, 0)],
    [(F.BITSHUFFLE, 0)],
    [(F.DELTA, 0)],
    [(F.DELTA, 0), (F.SHUFFLE, 0)],
    [(F.BYTEDELTA, 0)],
    [(F.SHUFFLE, 0), (F.BYTEDELTA, 0)],
    [(F.TRUNC_PREC, 10), (F.SHUFFLE, 0)],
    [(F.INT_TRUNC, 10)],
]
DTYPES = [
    "?",
    "i1",
    "<i2",
    "u8",
    "f2",
    "f4",
    ">f8",
    ">i4",
    "c8",
    "c16",
    "S5",
    "U4",
    ">U3",
    "M8[ns]",
    "m8[s]",
    "S300",
    "V7",
    [("a", "<i4"), ("b", "S3"), ("c", "f8", (2,))],
    np.dtype([("x", "i1"), ("y", "f8")], align=True),
]
SHAPES = [
    ((), (), ()),
    ((0,), None, None),
    ((3, 0, 4), None, None),
    ((1,), None, None),
    ((17,), (5,), (2,)),
    ((9, 8), (4, 5), (3, 2)),
    ((5, 6, 7), (2, 3, 4), (1, 2, 3)),
    ((3, 4, 2, 5), (2, 2, 2, 3), (2, 1, 2, 2)),
]
SPECIALS = ["f4", "i8", "S5", "S300", [("a", "<i4"), ("b", "S3")]]


def keys(shape):
    yield ()
    yield tuple(slice(n // 3, n // 2 + 1, 2) for n in shape)
    yield tuple(slice(None, None, -step) for step in (7, 1, 3, 2)[: len(shape)])
    if shape and shape[-1]:
        yield (Ellipsis, 0)
        yield (Ellipsis, slice(1, None, 3))
        yield tuple(n - 1 if n else slice(None) for n in shape)


def assert_same(stored, truth):
    """Compare bytes: NaN must be equal as well."""
    stored.assert_covered()
    for key in keys(truth.shape):
        # with an ellipsis numpy keeps 0-d results as arrays
        want, got = truth[key if Ellipsis in key else (*key, Ellipsis)], stored[key]
        assert got.dtype == truth.dtype
        assert got.shape == want.shape
        assert got.tobytes() == want.tobytes(), key
        assert stored.sent[key].tobytes() == want.tobytes(), key


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: "-".join(f.name for f, _ in p))
def test_pipelines(store, codec, pipeline):
    integers = np.cumsum(np.random.default_rng(1).integers(-3, 4, (37, 53)), axis=0)
    filters, meta = [f for f, _ in pipeline], [m for _, m in pipeline]
    for split, dtype in itertools.product(blosc2.SplitMode, ("f4", "f8", "i2")):
        if (F.TRUNC_PREC in filters and dtype == "i2") or (F.INT_TRUNC in filters and dtype != "i2"):
            continue
        params = blosc2.CParams(
            codec=codec, filters=list(filters), filters_meta=list(meta), splitmode=split, nthreads=1
        )
        array = blosc2.asarray(integers.astype(dtype), chunks=(20, 30), blocks=(7, 11), cparams=params)
        # what loses bits has its truth in the frame; the others in numpy
        truth = array[...] if any(meta) else integers.astype(dtype)
        assert_same(store(array), truth)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("params", [{}, {"clevel": 0}, {"use_dict": True}, {"filters": [F.DELTA]}], ids=str)
def test_dtypes_and_shapes(store, dtype, params):
    rng = np.random.default_rng(2)
    dtype = np.dtype(dtype)
    params = {**params, "filters_meta": [0]} if "filters" in params else params
    for shape, chunks, blocks in SHAPES:
        count = int(np.prod(shape))
        if dtype.kind == "U":
            truth = np.array([chr(97 + n % 26) * (n % 4) for n in range(count)], dtype).reshape(shape)
        else:
            top = 2 if dtype.kind == "b" else 100
            raw = rng.integers(0, top, count * dtype.itemsize, dtype="u1").tobytes()
            truth = np.frombuffer(raw, dtype).reshape(shape)
        limits = {"chunks": chunks, "blocks": blocks} if chunks else {}
        array = blosc2.asarray(truth, cparams=params, **limits)
        if dtype.kind == "V":  # Blosc2 names padding when it stores it
            truth = truth.view(blosc2.ndarray_from_cframe(array.to_cframe()).dtype)
        assert_same(store(array), truth)


@pytest.mark.parametrize("dtype", SPECIALS, ids=str)
def test_runs(store, dtype):
    dtype = np.dtype(dtype)
    value = np.frombuffer(b"abcdefgh" * 300, np.uint8)[: dtype.itemsize].tobytes()
    element = np.frombuffer(value, dtype)[0]
    limits = {"chunks": (20, 30), "blocks": (7, 11), "dtype": dtype}
    assert_same(store(blosc2.full((50, 60), element, **limits)), np.full((50, 60), element, dtype))
    assert_same(store(blosc2.zeros((50, 60), **limits)), np.zeros((50, 60), dtype))
    assert_same(store(blosc2.uninit((50, 60), **limits)), np.zeros((50, 60), dtype))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nan_runs(store, dtype):
    truth = np.full((50, 60), np.nan, dtype)
    made = blosc2.nans((50, 60), dtype=dtype, chunks=(20, 30), blocks=(7, 11))
    stored = store(made)
    assert {int(k) for page in stored.pages() for k in page.kinds} == {ChunkKind.NANS}
    assert_same(stored, truth)
    assert_same(store(blosc2.full((50, 60), np.nan, dtype=dtype, chunks=(20, 30), blocks=(7, 11))), truth)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"use_dict": True},
        {"codec": blosc2.Codec.LZ4, "use_dict": True},
        {"clevel": 0},
        {"filters": [F.DELTA, F.SHUFFLE], "filters_meta": [0, 0]},
    ],
    ids=str,
)
@pytest.mark.parametrize("smooth", [True, False])
def test_chunks_of_blocks(store, params, smooth):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 1 << 30, (600, 700)).astype("i4")
    if smooth:
        truth = np.cumsum(truth % 70000, axis=1, dtype="i8")
    stored = store(blosc2.asarray(truth, chunks=(300, 500), blocks=(90, 100), cparams=params))
    assert ChunkKind.BLOCKS in {int(kind) for page in stored.pages() for kind in page.kinds}
    assert_same(stored, truth)


def test_an_element_needs_its_block_only(store):
    truth = np.random.default_rng(4).integers(0, 1 << 30, (600, 700)).astype("i4")
    stored = store(blosc2.asarray(truth, chunks=(300, 700), blocks=(30, 70)))
    selection = select((299, 699), truth.shape)
    (cell,) = grid_of(stored.head).cells(selection)
    extents = block_extents(stored.head, stored.pages()[0], cell.nchunk, cell.blocks)
    assert len(extents) == 2
    assert sum(extent.size for extent in extents) < 10_000


@pytest.mark.parametrize(
    "params",
    [
        {"codec": blosc2.Codec.NDLZ, "codec_meta": 4, "filters": [F.NOFILTER], "filters_meta": [0]},
        {"codec": blosc2.Codec.ZFP_ACC, "codec_meta": 4, "filters": [F.NOFILTER], "filters_meta": [0]},
        {"codec": blosc2.Codec.ZFP_PREC, "codec_meta": 20, "filters": [F.NOFILTER], "filters_meta": [0]},
        {"codec": blosc2.Codec.ZFP_RATE, "codec_meta": 50, "filters": [F.NOFILTER], "filters_meta": [0]},
        {"filters": [F.NDCELL], "filters_meta": [4]},
        {"filters": [F.NDMEAN], "filters_meta": [4]},
    ],
    ids=str,
)
@pytest.mark.parametrize("edge", [48, 96])
def test_codecs_that_need_the_frame(store, params, edge):
    field = np.cumsum(np.random.default_rng(5).normal(size=(edge,) * 3), axis=0)
    if params.get("codec") == blosc2.Codec.NDLZ:
        field = (field[0] * 10).astype("u1")
    limits = {"chunks": (edge - 16,) * field.ndim, "blocks": (16,) * field.ndim}
    array = blosc2.asarray(field, cparams=params, **limits)
    assert_same(store(array), array[...])


def test_a_codec_that_is_not_there_is_named(store):
    raw = bytearray(blosc2.asarray(np.arange(1000.0), chunks=(500,), blocks=(100,)).to_cframe())
    at = int.from_bytes(raw[11:15], "big")  # the first chunk
    raw[27] = raw[27] & 0xF0 | 6
    raw[77] = 200
    raw[at + 2] = raw[at + 2] & 0x1F | 6 << 5
    raw[at + 22] = 200
    stored = store(bytes(raw))
    assert stored.head.meta["schunk"]["cparams"]["codec"] == 200
    with pytest.raises(Unsupported, match="codec number 200"):
        stored[0]


@pytest.mark.parametrize("field", [4, 8, 12])
def test_a_chunk_that_contradicts_the_head_is_corrupt(store, field):
    truth = np.random.default_rng(6).integers(0, 1 << 30, (600, 700)).astype("i4")
    for chunks in ((300, 700), (30, 70)):  # of blocks, whole
        stored = store(blosc2.asarray(truth, chunks=chunks, blocks=(30, 70)))
        head, page = stored.head, stored.pages()[0]
        (cell,) = grid_of(head).cells(select((0, 0), truth.shape))
        parts = [
            stored.source.pread(e.offset, e.size) for e in block_extents(head, page, cell.nchunk, cell.blocks)
        ]
        first = bytearray(parts[0])
        first[field : field + 4] = (int.from_bytes(first[field : field + 4], "little") + 8).to_bytes(
            4, "little"
        )
        with pytest.raises(Corrupt):
            decode_stored(head, page, cell.nchunk, cell.blocks, [bytes(first), *parts[1:]])


def test_damaged_blocks_are_corrupt(store):
    truth = np.arange(600 * 700).reshape(600, 700)
    stored = store(blosc2.asarray(truth, chunks=(60, 70), blocks=(30, 70)))
    head, page = stored.head, stored.pages()[0]
    (cell,) = grid_of(head).cells(select((0, 0), truth.shape))
    (chunk,) = (
        stored.source.pread(e.offset, e.size) for e in block_extents(head, page, cell.nchunk, cell.blocks)
    )
    with pytest.raises(Corrupt):
        decode_stored(head, page, cell.nchunk, cell.blocks, [chunk[:40] + b"\x7f" * (len(chunk) - 40)])
    with pytest.raises(Corrupt):
        decode_stored(head, page, cell.nchunk, cell.blocks, [chunk[:-1]])


def test_decode_blocks_are_the_blocks_of_the_chunk(store):
    truth = np.random.default_rng(7).integers(0, 1 << 30, (600, 700)).astype("i4")
    for chunks in ((300, 700), (30, 70)):
        stored = store(blosc2.asarray(truth, chunks=chunks, blocks=(30, 70)))
        page = stored.pages()[0]
        nblocks = grid_of(stored.head).nblocks
        parts = [stored.source.pread(e.offset, e.size) for e in page.chunk_extents(0)]
        if page.kind(0) == ChunkKind.BLOCKS:
            parts = [stored.source.pread(page.chunk_head(0).offset, page.chunk_head(0).size)]
            blocks = page.chunk_blocks(0, range(nblocks))
            parts += [stored.source.pread(e.offset, e.size) for e in blocks]
        found = decode_blocks(stored.head, page, 0, range(nblocks), parts)
        want = truth[: chunks[0], : chunks[1]].reshape(chunks[0] // 30, 30, chunks[1] // 70, 70)
        assert np.array_equal(found, want.transpose(0, 2, 1, 3).reshape(-1, 30, 70))


@pytest.mark.parametrize("typesize", [1, 4, 7])
@pytest.mark.parametrize("nbytes", [0, 1, 700, 1001 * 7, 5_000_003])
@pytest.mark.parametrize("special", [False, True])
def test_plain_frames(store, typesize, nbytes, special):
    nbytes -= nbytes % typesize
    data = bytes(nbytes) if special else np.random.default_rng(8).integers(0, 9, nbytes, "u1").tobytes()
    chunk = blosc2.SChunk(
        chunksize=700_000 if nbytes > 10**6 else 2100, data=data or None, cparams={"typesize": typesize}
    )
    stored = store(chunk, "x.b2frame")
    stored.assert_covered()
    assert dtype_of(stored.head) == np.uint8
    assert typesize_of(stored.head) == chunk.typesize
    for key in (slice(None), slice(3, -5), slice(nbytes // 2, None), slice(1, None, 1000)):
        assert stored[key].tobytes() == data[key]


def test_a_plain_frame_of_a_repeated_item(store):
    chunk = blosc2.SChunk(chunksize=4000, cparams={"typesize": 8})
    chunk.fill_special(1500, blosc2.SpecialValue.VALUE, 7.25)
    data = np.full(1500, 7.25).tobytes()
    stored = store(chunk, "x.b2frame")
    for key in (slice(None), slice(3, 4001), slice(4007, 4011), slice(0, None, 333)):
        assert stored[key].tobytes() == data[key]


def test_a_head_that_contradicts_itself_is_corrupt(store):
    stored = store(blosc2.asarray(np.arange(10)))
    with pytest.raises(Corrupt):
        grid_of(replace(stored.head, nchunks=7))
    frame = store(blosc2.SChunk(data=b"123"), "x.b2frame").head
    for wrong in (None, "1", -1, 0, 10**9):
        with pytest.raises(Corrupt):
            grid_of(replace(frame, meta={**frame.meta, "blocksize": wrong}))
