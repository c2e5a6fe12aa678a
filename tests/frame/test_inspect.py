import copy
import json

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caterva2.errors import Corrupt, Unsupported
from caterva2.frame import inspect as module
from caterva2.frame.inspect import describe, inspect
from caterva2.frame.pages import make_page
from caterva2.model.manifest import Head
from caterva2.model.path import parse_path


def head_of(raw, kind="array"):
    def read(offset, size):
        data = raw[offset : offset + size]
        if offset < 0 or len(data) != size:
            raise Corrupt("cut")
        return data

    return inspect(read, path=parse_path("r/x"), kind=kind, size=len(raw), mtime_ns=7), read


def test_what_is_no_frame_is_described_as_a_file():
    frame = blosc2.asarray(np.arange(1000)).to_cframe()
    for name, raw, kind in (
        ("x.b2nd", frame, "array"),
        ("x.b2nd", frame[:-1], "file"),
        ("x.txt", frame, "file"),
    ):
        read = head_of(raw, "file")[1]
        head = describe(read, path=parse_path(f"r/{name}"), size=len(raw), mtime_ns=7)
        assert (head.kind, head.size, head.mtime_ns) == (kind, len(raw), 7)
        assert ("error" in head.meta) == (name == "x.b2nd" and kind == "file")


def test_the_metadata_are_those_of_blosc2():
    params = blosc2.CParams(
        codec=blosc2.Codec.LZ4, clevel=3, filters=[blosc2.Filter.BITSHUFFLE], filters_meta=[0],
        splitmode=blosc2.SplitMode.NEVER_SPLIT, nthreads=1,
    )  # fmt: skip
    array = blosc2.asarray(np.arange(1000.0).reshape(10, 100), chunks=(4, 30), blocks=(2, 7), cparams=params)
    array.schunk.vlmeta["unit"] = "K"
    array.schunk.vlmeta["nested"] = {"a": [1, 2.5, None], "b": b"text", "c": b"\xff"}
    head, _ = head_of(array.to_cframe())
    array = blosc2.ndarray_from_cframe(array.to_cframe())
    meta, schunk = head.meta, head.meta["schunk"]
    assert meta["shape"] == [10, 100] and meta["chunks"] == [4, 30] and meta["blocks"] == [2, 7]
    assert np.dtype(meta["dtype"]) == array.dtype
    assert (schunk["nbytes"], schunk["cbytes"]) == (array.schunk.nbytes, array.schunk.cbytes)
    assert schunk["cratio"] == pytest.approx(array.schunk.cratio)
    assert schunk["nchunks"] == array.schunk.nchunks
    assert schunk["chunksize"] == array.schunk.chunksize
    assert schunk["chunkshape"] == array.schunk.chunkshape
    assert schunk["blocksize"] == array.schunk.blocksize
    assert schunk["contiguous"] and schunk["urlpath"] is None
    assert meta["attrs"] == {"unit": "K", "nested": {"a": [1, 2.5, None], "b": "text", "c": "base64:/w=="}}
    found = blosc2.CParams(**copy.deepcopy(schunk["cparams"]))  # as C2Array does it
    for name in ("codec", "clevel", "typesize", "splitmode", "codec_meta", "use_dict", "filters"):
        assert getattr(found, name) == getattr(array.schunk.cparams, name), name
    assert json.loads(json.dumps(meta, allow_nan=False)) == meta
    decoded = Head.decode(head.encode())
    assert decoded.encode() == head.encode()
    assert (head.etag, head.generation, head.mtime_ns) == ("", 0, 7)


def test_frames_have_the_fields_of_a_super_chunk():
    frame = blosc2.SChunk(chunksize=1000, data=bytes(range(250)) * 20, cparams={"typesize": 2})
    head, _ = head_of(frame.to_cframe(), "frame")
    assert (head.meta["nbytes"], head.meta["typesize"], head.meta["nchunks"]) == (5000, 2, 5)
    assert head.meta["cparams"]["typesize"] == 2


def test_empty_frames():
    head, _ = head_of(blosc2.SChunk().to_cframe(), "frame")
    assert (head.nchunks, head.npages, head.meta["nbytes"]) == (0, 0, 0)
    assert head.meta["chunksize"] >= 0


def test_an_array_without_bytes_claims_what_it_likes():
    head, _ = head_of(
        blosc2.zeros((3_000_000, 400_000), chunks=(10_000, 10_000), blocks=(1000, 1000)).to_cframe()
    )
    assert head.meta["shape"] == [3_000_000, 400_000]
    assert head.size < 1000


def objects():
    lists = blosc2.ObjectArray()
    lists.append({"a": 1})
    yield "ObjectArray", lists.to_cframe()
    batch = blosc2.BatchArray()
    batch.append([1, 2, 3])
    batch.append([1])
    yield "BatchArray", batch.to_cframe()
    yield "lazy", blosc2.zeros(10, meta={"b2o": {"kind": "lazyexpr", "version": 1}}).to_cframe()
    yield "Proxy", blosc2.zeros(10, meta={"proxy-source": {}}).to_cframe()


@pytest.mark.parametrize(("name", "raw"), list(objects()))
@pytest.mark.parametrize("kind", ["array", "frame"])
def test_other_objects_are_named(name, raw, kind):
    with pytest.raises(Unsupported, match=name):
        head_of(raw, kind)


def test_a_plain_frame_is_no_array():
    with pytest.raises(Unsupported, match="b2nd"):
        head_of(blosc2.SChunk(data=b"123").to_cframe())


def test_objects_as_elements_are_refused():
    raw = blosc2.asarray(np.arange(5, dtype="i8")).to_cframe()
    with pytest.raises(Unsupported):
        head_of(raw.replace(b"<i8", b"|O8"))


@pytest.mark.parametrize("raw", [b"", b"junk", b"junk" * 100, bytes(4096)])
def test_junk_is_corrupt(raw):
    with pytest.raises(Corrupt):
        head_of(raw)


def test_cut_and_padded_frames_are_corrupt():
    raw = blosc2.asarray(np.arange(1000), chunks=(100,), blocks=(50,)).to_cframe()
    for size in range(0, len(raw), 7):
        with pytest.raises(Corrupt):
            head_of(raw[:size])
    with pytest.raises(Corrupt):
        head_of(raw + b"\0")


def _sample():
    array = blosc2.asarray(
        np.random.default_rng(1).integers(0, 99, (20, 30)), chunks=(7, 9), blocks=(3, 4), meta={"own": [1, 2]}
    )
    array.schunk.vlmeta["x"] = {"y": 1}
    return array.to_cframe()


SAMPLE = _sample()


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 400) | st.integers(-200, -1) | st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)
        ),
        min_size=1,
        max_size=4,
    ),
    kind=st.sampled_from(["array", "frame"]),
)
def test_damaged_frames_are_refused_or_described(changes, kind):
    raw = bytearray(SAMPLE)
    for at, value in changes:
        raw[at] = value
    try:
        head, read = head_of(bytes(raw), kind)
        for number in range(head.npages):
            make_page(read, head, number)
    except (Corrupt, Unsupported):
        return
    assert Head.decode(head.encode()).size == len(SAMPLE)
    json.dumps(head.meta, allow_nan=False)


@pytest.mark.parametrize("values", [np.arange(10), np.zeros(10), np.arange(1000), np.empty(0)])
def test_few_chunks_are_described_as_many_are(values, monkeypatch):
    raw = blosc2.asarray(values, chunks=(10,), blocks=(5,)).to_cframe()
    few = head_of(raw)[0].encode()
    monkeypatch.setattr(module, "FEW_CHUNKS", -1)
    assert head_of(raw)[0].encode() == few
