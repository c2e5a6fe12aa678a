from __future__ import annotations

import pytest

from caterva2.errors import InvalidPath
from caterva2.model.pattern import check_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("foo", "foo/a.b2nd", True),
        ("foo", "foobar/a.b2nd", False),
        ("foo/a.b2nd", "foo/a.b2nd", True),
        ("foo/dir", "foo/dir/a.b2nd", True),
        ("foo/di", "foo/dir/a.b2nd", False),
        ("foo/*", "foo/dir/a.b2nd", True),
        ("*.b2nd", "foo/dir/a.b2nd", True),
        ("*.b2nd", "foo/dir/a.txt", False),
        ("foo/**", "foo/a.b2nd", True),
        ("foo/**", "foo/dir1/dir2/a.b2nd", True),
        ("foo/**", "foobar/a.b2nd", False),
        ("foo/**/a.b2nd", "foo/dir1/dir2/a.b2nd", True),
        ("foo/[ab].txt", "foo/b.txt", True),
        ("FOO", "foo/a", False),
    ],
)
def test_what_a_pattern_names(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


@pytest.mark.parametrize("pattern", ["", "/", "/foo", "foo\0", "a\nb", "x" * 2000])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidPath):
        check_pattern(pattern)


def test_trailing_slashes_are_cut() -> None:
    assert check_pattern("foo/dir1//") == "foo/dir1"
