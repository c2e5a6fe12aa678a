from __future__ import annotations

import pytest

from caterva2.errors import InvalidRange
from caterva2.http.ranges import MAX_RANGES, ByteRange, Multipart, parse_range

HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-", [(0, 1000)]),
        ("bytes=-10", [(990, 1000)]),
        ("bytes=-5000", [(0, 1000)]),
        (f"bytes=-{HUGE}", [(0, 1000)]),
        (f"bytes=7-{HUGE}", [(7, 1000)]),
        ("bytes=0000000000000000000000001-2", [(1, 3)]),
        ("BYTES=1-1", [(1, 2)]),
        ("bytes=5-6,0-1 ,\t9-9", [(5, 7), (0, 2), (9, 10)]),
        ("bytes=,0-1,,3-4,", [(0, 2), (3, 5)]),
        ("bytes=999-999,1000-2000", [(999, 1000)]),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(MAX_RANGES)), [(n, n + 1) for n in range(MAX_RANGES)]),
    ],
)
def test_ranges(value, expected) -> None:
    assert parse_range(value, 1000) == [ByteRange(*one) for one in expected]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=2-1",
        "bytes=1-2,x",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=٣-٤",
        "items=0-1",
        "bytes:0-1",
        "bytes=0-1;2-3",
    ],
)
def test_what_is_no_range_is_ignored(value) -> None:
    assert parse_range(value, 1000) is None


@pytest.mark.parametrize(
    "value",
    ["bytes=1000-", f"bytes={HUGE}-", "bytes=-0", "bytes=0-,-1", "bytes=" + "0-0," * (MAX_RANGES + 1)],
)
def test_what_cannot_be_satisfied_names_the_size(value) -> None:
    with pytest.raises(InvalidRange) as raised:
        parse_range(value, 1000)
    assert raised.value.size == 1000


def test_nothing_of_an_empty_file_can_be_satisfied() -> None:
    for value in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        with pytest.raises(InvalidRange):
            parse_range(value, 0)


async def test_a_multipart_body_is_as_long_as_it_says_and_its_first_piece_has_data() -> None:
    async def stream(one: ByteRange):
        for at in range(one.start, one.stop, 4):
            yield b"x" * min(4, one.stop - at)

    multipart = Multipart([ByteRange(0, 10), ByteRange(100, 101)], 1000, "text/plain")
    pieces = [piece async for piece in multipart.body(stream)]
    assert sum(map(len, pieces)) == multipart.length
    assert pieces[0].endswith(b"\r\n\r\nxxxx")
