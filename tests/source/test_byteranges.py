from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2.model.extents import Extent
from caterva2.source.byteranges import (
    MAX_RANGES,
    REQUEST_BYTES,
    BadAnswer,
    MultipartReader,
    Run,
    SingleReader,
    boundary_of,
    parse_content_range,
    plan,
    range_header,
)


def extent(offset, size):
    return Extent(offset, offset, size, b"")


class TestPlan:
    def test_nothing(self):
        assert plan([], 100) == []

    def test_near_extents_are_one_range(self):
        ((run,),) = plan([extent(0, 10), extent(30, 5), extent(10, 10)], gap_bytes=10)
        assert (run.start, run.stop) == (0, 35)
        assert [e.offset for e in run.extents] == [0, 10, 30]

    def test_far_extents_are_several(self):
        ((one, two),) = plan([extent(0, 10), extent(21, 5)], gap_bytes=10)
        assert (one.start, one.stop, two.start, two.stop) == (0, 10, 21, 26)

    def test_a_large_extent_has_a_request_of_its_own(self):
        requests = plan([extent(0, 10), extent(10, REQUEST_BYTES + 1), extent(REQUEST_BYTES + 11, 1)], 0)
        assert [[(run.start, run.stop) for run in runs] for runs in requests] == [
            [(0, 10)],
            [(10, REQUEST_BYTES + 11)],
            [(REQUEST_BYTES + 11, REQUEST_BYTES + 12)],
        ]

    @given(
        st.lists(st.tuples(st.integers(0, 40 * 2**20), st.integers(1, 3 * 2**20)), max_size=300),
        st.integers(0, 2**17),
    )
    def test_every_extent_is_asked_for_once_within_the_limits(self, spans, gap_bytes):
        extents = []
        end = 0
        for gap, size in spans:
            extents.append(extent(end + gap % 100_000, size))
            end = extents[-1].stop
        requests = plan(extents, gap_bytes)
        runs = [run for request in requests for run in request]
        assert [e for run in runs for e in run.extents] == extents
        for run in runs:
            assert run.start == run.extents[0].offset
            assert run.stop == run.extents[-1].stop
            wasted = run.size - sum(e.size for e in run.extents)
            assert wasted <= gap_bytes * (len(run.extents) - 1)
        for request in requests:
            assert 1 <= len(request) <= MAX_RANGES
            assert sum(run.size for run in request) <= REQUEST_BYTES


class TestContentRange:
    def test_sound(self):
        assert parse_content_range("bytes 0-9/100") == (0, 10, 100)
        assert parse_content_range("bytes 5-5/*") == (5, 6, None)

    @pytest.mark.parametrize(
        "value", [None, "", "bytes */100", "bytes 1-/2", "items 0-1/2", "bytes 0-9/100 x"]
    )
    def test_malformed(self, value):
        with pytest.raises(BadAnswer):
            parse_content_range(value)


class TestSingleReader:
    def test_pieces(self):
        reader = SingleReader(5)
        for piece in (b"ab", b"", b"cde"):
            reader.feed(piece)
        assert reader.close() == [b"abcde"]

    def test_too_long(self):
        reader = SingleReader(2)
        with pytest.raises(BadAnswer):
            reader.feed(b"abc")

    def test_too_short(self):
        reader = SingleReader(2)
        reader.feed(b"a")
        with pytest.raises(BadAnswer):
            reader.close()


SIZE = 1000
DATA = bytes(range(250)) * 4
RUNS = [Run(0, 3, ()), Run(10, 110, ()), Run(500, 501, ()), Run(990, 1000, ())]


def body(runs=RUNS, boundary=b"xyz", end=b"--xyz--\r\n", preamble=b""):
    parts = [
        b"--%s\r\nContent-Type: a/b\r\ncontent-range:  bytes %d-%d/%d\r\n\r\n%s\r\n"
        % (boundary, run.start, run.stop - 1, SIZE, DATA[run.start : run.stop])
        for run in runs
    ]
    return preamble + b"".join(parts) + end


def parse(data, cuts=()):
    reader = MultipartReader(b"xyz", RUNS, SIZE)
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(bounds):
        reader.feed(data[start:stop])
    return reader.close()


class TestMultipartReader:
    @given(st.lists(st.integers(0, 2000), max_size=40))
    def test_pieces_of_any_size(self, cuts):
        assert parse(body(), cuts) == [DATA[run.start : run.stop] for run in RUNS]

    def test_byte_by_byte(self):
        assert parse(body(preamble=b"\r\n"), range(2000)) == [DATA[run.start : run.stop] for run in RUNS]

    @given(st.integers(0, 2000))
    def test_cut_anywhere(self, cut):
        whole = body()
        cut %= len(whole) - len(b"\r\n")  # what is behind the end mark does not matter
        with pytest.raises(BadAnswer):
            parse(whole[:cut])

    @pytest.mark.parametrize(
        "wrong",
        [
            body(RUNS[:3]),
            body([*RUNS, RUNS[0]]),
            body(RUNS[::-1]),
            body([RUNS[0], RUNS[0], *RUNS[2:]]),
            body(boundary=b"abc", end=b"--abc--"),
            body(end=b""),
            body().replace(b"/1000", b"/1001"),
            b"x" * 100_000,
            b"",
        ],
    )
    def test_other_parts_than_asked_for(self, wrong):
        with pytest.raises(BadAnswer):
            parse(wrong)

    @given(st.binary(max_size=300))
    def test_junk(self, junk):
        with pytest.raises(BadAnswer):
            parse(junk)


def test_boundary():
    assert boundary_of('multipart/byteranges; boundary="a b"') == b"a b"
    for wrong in ("multipart/byteranges", "text/plain; boundary=x", ""):
        with pytest.raises(BadAnswer):
            boundary_of(wrong)


def test_range_header():
    assert range_header(RUNS[:2]) == "bytes=0-2,10-109"
