import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2.errors import InvalidPath
from caterva2.model.path import MAX_PATH_BYTES, DatasetPath, check_root, kind_of, parse_path


def test_paths():
    path = parse_path("foo/dir1/ds-2d.b2nd")
    assert path == DatasetPath("foo", "dir1/ds-2d.b2nd")
    assert str(path) == "foo/dir1/ds-2d.b2nd"
    assert str(parse_path("foo", allow_root=True)) == "foo"
    assert parse_path("foo/añ b%2F") == DatasetPath("foo", "añ b%2F")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "foo/",
        "/foo",
        "/etc/passwd",
        "foo//x",
        "foo/../x",
        "foo/..",
        "foo/.",
        "../x",
        "foo/x\0",
        "foo/x\n",
        "foo/a\\b",
        "foo/\x7f",
        "fo o/x",
        ".foo/x",
        "foo/\ud800",
        "f/" + "x" * MAX_PATH_BYTES,
        "ñ/x",
        "a" * 65 + "/x",
    ],
)
def test_what_is_no_dataset(text):
    with pytest.raises(InvalidPath):
        parse_path(text)


@given(st.text())
def test_valid_paths_stay_below_their_root(text):
    try:
        path = parse_path(text)
    except InvalidPath:
        return
    assert str(path) == text
    assert check_root(path.root) == path.root
    assert not set(path.name.split("/")) & {"", ".", ".."}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.b2nd", "array"),
        ("X.B2ND", "array"),
        ("x.b2frame", "frame"),
        ("x.b2", "frame"),
        ("x", "file"),
        ("x.b2nd.txt", "file"),
        ("b2nd", "file"),
        (".b2nd", "array"),
    ],
)
def test_kinds(name, kind):
    assert kind_of(name) == kind
