from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2.errors import Corrupt
from caterva2.model.extents import (
    DIGEST_BYTES,
    FIXED_SLOTS,
    ChunkKind,
    Extent,
    Fixed,
    digest,
)
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import parse_path

NBLOCKS = 3


def made():
    """A version of five chunks: whole, blocks, zeros, blocks, whole with slack."""
    kinds = [ChunkKind.WHOLE, ChunkKind.BLOCKS, ChunkKind.ZEROS, ChunkKind.BLOCKS, ChunkKind.WHOLE]
    page = Page(
        number=0,
        first=0,
        kinds=np.array(kinds, np.uint8),
        offsets=np.array([100, 200, -1, 500, 800], np.int64),
        sizes=np.array([100, 300, 0, 300, 50], np.int64),
        slacks=np.array([0, 0, 0, 0, 50], np.int64),
        digests=np.arange(5 * DIGEST_BYTES, dtype=np.uint8).reshape(5, -1),
        slack_digests=np.zeros((5, DIGEST_BYTES), np.uint8),
        preambles=np.array([0, 44, 0, 44, 0], np.int32),
        block_starts=np.array([[44, 144, 244], [200, 44, 100]], np.int32),
        block_digests=np.zeros((2, NBLOCKS, DIGEST_BYTES), np.uint8),
        slots_per_chunk=NBLOCKS + 2,
    )
    head = Head(
        path=parse_path("r/x.b2frame"),
        etag="e" * 32,
        generation=3,
        kind="frame",
        size=1000,
        mtime_ns=5,
        header=b"h" * 100,
        fixed=(Extent(Fixed.HEADER, 0, 100, b"d" * 16), Extent(Fixed.TRAILER, 900, 100, b"t" * 16)),
        nchunks=5,
        slots_per_chunk=NBLOCKS + 2,
        page_starts=np.array([0], np.int64),
        meta={"blocksize": 10},
    )
    return head, page


def test_wire_forms():
    head, page = made()
    back = Head.decode(head.encode())
    assert back.encode() == head.encode()
    assert (back.path, back.fixed, back.shape) == (head.path, head.fixed, None)
    assert Page.decode(page.encode(), back, 0).encode() == page.encode()


def encoded_forms():
    """How each is decoded, and an encoded one."""
    head, page = made()
    return (Head.decode, head.encode()), (lambda data: Page.decode(data, head, 0), page.encode())


def unsealed(data):
    """The members of an encoded head or page."""
    return msgpack.unpackb(data[DIGEST_BYTES:])


def sealed(members):
    packed = msgpack.packb(members)
    return digest(packed) + packed


@given(st.data())
def test_flipped_bits_break_the_seal(data):
    for decode, encoded in encoded_forms():
        changed = bytearray(encoded)
        for bit in data.draw(st.sets(st.integers(0, 8 * len(encoded) - 1), min_size=1, max_size=3)):
            changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt, match="seal"):
            decode(bytes(changed))


def test_each_single_bit_counts():
    for decode, encoded in encoded_forms():
        for bit in range(8 * len(encoded)):
            changed = bytearray(encoded)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Corrupt, match="seal"):
                decode(bytes(changed))


@given(st.data())
def test_cut_and_longer_ones_are_corrupt(data):
    for decode, encoded in encoded_forms():
        cut = data.draw(st.integers(0, len(encoded) - 1))
        for changed in (encoded[:cut], encoded + data.draw(st.binary(min_size=1, max_size=20))):
            with pytest.raises(Corrupt):
                decode(changed)


def test_other_formats_are_corrupt():
    for decode, encoded in encoded_forms():
        members = unsealed(encoded)
        decode(sealed(members))
        for other in ({**members, "format": 1}, {**members, "format": 3}, [1], None):
            with pytest.raises(Corrupt, match="format"):
                decode(sealed(other))
        with pytest.raises(Corrupt):  # as format 1 was: without a seal
            decode(msgpack.packb({**members, "format": 1}))


def test_a_page_under_the_number_of_another_is_corrupt():
    head, page = made()
    two = replace(head, nchunks=10, page_starts=np.array([0, 5], np.int64))
    assert Page.decode(page.encode(), two, 0).number == 0
    for wrong in (1, 2):
        with pytest.raises(Corrupt, match=f"not page {wrong}"):
            Page.decode(page.encode(), two, wrong)


def test_columns_without_anything_travel_empty():
    head, page = made()
    plain = replace(
        page,
        kinds=np.full(5, ChunkKind.WHOLE, np.uint8),
        offsets=np.arange(100, 600, 100),
        sizes=np.full(5, 100),
        slacks=np.zeros(5, np.int64),
        preambles=np.zeros(5, np.int32),
        block_starts=page.block_starts[:0],
        block_digests=page.block_digests[:0],
    )
    sent = unsealed(plain.encode())
    assert not any(sent[name] for name in ("slacks", "slack_digests", "preambles"))
    back = Page.decode(plain.encode(), head, 0)
    for name in ("kinds", "offsets", "sizes", "slacks", "digests", "slack_digests", "preambles"):
        assert np.array_equal(getattr(back, name), getattr(plain, name))
    assert list(back.extents()) == list(plain.extents())


def test_extents_lie_side_by_side():
    _, page = made()
    extents = list(page.extents())
    assert [(e.offset, e.stop) for e in extents] == [
        (100, 200), (200, 244), (244, 344), (344, 444), (444, 500),
        (500, 544), (544, 600), (600, 700), (700, 800), (800, 850), (850, 900),
    ]  # fmt: skip
    assert len({e.number for e in extents}) == len(extents)
    assert page.chunk_extents(2) == []
    assert page.chunk_slack(0) is None and page.chunk_slack(4).size == 50
    assert [e.number - FIXED_SLOTS for e in page.chunk_blocks(3, [0, 2])] == [3 * 5 + 2, 3 * 5 + 4]


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 1}, {"first": 1}, {"slots_per_chunk": 9}, {"kinds": np.full(5, 9, np.uint8)},
        {"offsets": np.array([950, 200, -1, 500, 800])}, {"sizes": np.array([0, 300, 0, 300, 50])},
        {"slacks": np.array([-1, 0, 0, 0, 50])}, {"preambles": np.zeros(5, np.int32)},
        {"block_starts": np.array([[4, 144, 244], [200, 44, 100]])},
        {"block_starts": np.array([[44, 44, 244], [200, 44, 100]])},
        {"block_starts": np.array([[44, 144, 300], [200, 44, 100]])},
        {"kinds": np.zeros(4, np.uint8)}, {"block_digests": np.zeros((1, NBLOCKS, 16), np.uint8)},
    ],
    ids=str,
)  # fmt: skip
def test_contradictory_pages_are_corrupt(changes):
    head, page = made()
    with pytest.raises(Corrupt):
        Page.decode(replace(page, **changes).encode(), head, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"nchunks": 0}, {"page_starts": np.array([1])}, {"page_starts": np.array([0, 0])},
        {"page_starts": np.array([0, 7])}, {"page_starts": np.array([], np.int64)}, {"size": 950},
        {"fixed": (Extent(0, 0, 0, b""),)},
    ],
    ids=str,
)  # fmt: skip
def test_contradictory_heads_are_corrupt(changes):
    with pytest.raises(Corrupt):
        Head.decode(replace(made()[0], **changes).encode())


@given(st.binary(max_size=200))
def test_junk_is_corrupt(data):
    head, _ = made()
    for encoded in (data, digest(data) + data):
        with pytest.raises(Corrupt):
            Head.decode(encoded)
        with pytest.raises(Corrupt):
            Page.decode(encoded, head, 0)


@given(
    st.sampled_from(["path", "fixed", "page_starts", "nchunks", "size", "kind"]),
    st.none() | st.integers() | st.text(),
)
def test_heads_with_members_of_other_types_are_corrupt_or_sound(name, value):
    raw = unsealed(made()[0].encode())
    try:
        data = sealed({**raw, name: value})
    except OverflowError:
        return
    try:
        head = Head.decode(data)
    except Corrupt:
        return
    assert Head.decode(head.encode()).encode() == head.encode()


def test_pages_by_chunk():
    head = replace(made()[0], nchunks=10, page_starts=np.array([0, 4, 5], np.int64))
    assert [head.page_of(n) for n in (0, 3, 4, 5, 9)] == [0, 0, 1, 2, 2]
    assert head.pages_of([9, 0, 1, 9]) == [0, 2]
    assert [head.page_chunks(n) for n in range(3)] == [range(4), range(4, 5), range(5, 10)]
    assert head.nextents == FIXED_SLOTS + 10 * (NBLOCKS + 2)
    assert head.fixed_extent(Fixed.GAP) is None


def as_later(page, **changes):
    """The page of a later version in which its chunks lie elsewhere."""
    stored = page.kinds <= ChunkKind.BLOCKS
    return replace(page, offsets=np.where(stored, page.offsets + 7, -1), **changes)


def test_a_page_of_which_nothing_changed_travels_as_where_it_is_now():
    head, page = made()
    longer = replace(head, size=2000)
    later = as_later(page)
    assert later.content == page.content
    sent = later.encode_unchanged()
    assert len(sent) < len(later.encode())
    back = Page.decode(sent, longer, 0, page)
    assert back.encode() == later.encode()
    assert list(back.extents()) == list(later.extents())
    assert Page.decode(later.encode(), longer, 0, page).encode() == later.encode()


def test_chunks_that_follow_each_other_travel_as_one_offset():
    head, page = made()
    assert len(unsealed(page.encode_unchanged())["offsets"]) == 8
    swapped = replace(page, offsets=np.array([850, 100, -1, 400, 700], np.int64))
    assert len(unsealed(swapped.encode_unchanged())["offsets"]) == 4 * 8
    for known, sent in ((page, swapped), (swapped, page)):
        back = Page.decode(sent.encode_unchanged(), head, 0, known)
        assert np.array_equal(back.offsets, sent.offsets)


@pytest.mark.parametrize("column", ["kinds", "sizes", "slacks", "digests", "preambles", "block_starts"])
def test_whatever_changes_is_another_content(column):
    _, page = made()
    values = getattr(page, column).copy()
    values.flat[0] += 1
    assert replace(page, **{column: values}).content != page.content


def test_unchanged_from_another_page_than_the_known_one_is_corrupt():
    head, page = made()
    digests = page.digests.copy()
    digests[0, 0] ^= 1
    with pytest.raises(Corrupt, match="unchanged"):
        Page.decode(page.encode_unchanged(), head, 0, replace(page, digests=digests))
    with pytest.raises(Corrupt):
        Page.decode(page.encode_unchanged(), head, 0)  # nothing was said to be known
    with pytest.raises(Corrupt, match="offsets"):
        Page.decode(as_later(page).encode_unchanged(), replace(head, size=700), 0, page)


def test_each_bit_of_an_unchanged_page_counts():
    head, page = made()
    encoded = page.encode_unchanged()
    for bit in range(8 * len(encoded)):
        changed = bytearray(encoded)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt, match="seal"):
            Page.decode(bytes(changed), head, 0, page)
