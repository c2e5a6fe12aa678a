"""What names a subscriber, a root, a directory or a dataset."""

from __future__ import annotations

import pytest

from caterva2.client import Location, parse_location
from caterva2.client.protocol import dataset_url
from caterva2.errors import InvalidPath


@pytest.mark.parametrize(
    ("text", "subscriber", "path", "etag"),
    [
        ("", None, "", None),
        ("foo", None, "foo", None),
        ("foo/", None, "foo", None),
        ("foo/dir1/x.b2nd", None, "foo/dir1/x.b2nd", None),
        ("foo/100%25 #?.b2nd", None, "foo/100%25 #?.b2nd", None),  # a path is no URL
        ("caterva2:///", None, "", None),
        ("caterva2:///foo/x%20y.b2nd", None, "foo/x y.b2nd", None),
        ("caterva2://there/foo/x", "http://there:8002", "foo/x", None),
        ("caterva2://there:9/foo", "http://there:9", "foo", None),
        ("caterva2://there:9", "http://there:9", "", None),
        ("CATERVA2://there:9/foo/data/x", "http://there:9", "foo/data/x", None),
        ("caterva2s://there/foo/x?version=ab%26c", "https://there", "foo/x", "ab&c"),
        ("caterva2://[::1]/foo", "http://[::1]:8002", "foo", None),
        ("http://there:9", "http://there:9", "", None),
        ("http://there:9/", "http://there:9", "", None),
        ("http://there:9/data/", "http://there:9", "", None),
        ("https://there/behind/a/proxy", "https://there/behind/a/proxy", "", None),
        ("https://there/a/proxy/data/foo/data/x", "https://there/a/proxy", "foo/data/x", None),
        ("http://there:9/data/foo/%C3%A9%3F.b2nd?version=ab", "http://there:9", "foo/é?.b2nd", "ab"),
    ],
)
def test_a_location_is_understood(text, subscriber, path, etag) -> None:
    assert parse_location(text) == Location(subscriber, path, etag)


@pytest.mark.parametrize("name", ["foo/x.b2nd", "foo/data/é #?%&+ x.b2nd"])
def test_the_url_of_a_dataset_names_it(name) -> None:
    url = dataset_url("http://there:9/prefix", name, "a&b")
    assert parse_location(url) == Location("http://there:9/prefix", name, "a&b")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ftp://there/foo", "cannot be opened"),
        ("caterva2://there/foo/../x", "not a dataset"),
        ("/foo/x", "root"),
        ("caterva2s:///foo", "no host"),
        ("http:///data/foo", "no host"),
        ("caterva2://:9/foo", "no host"),
        ("caterva2://there:port/foo", "not a URL"),
        ("http://[::1/data/foo", "not a URL"),
        ("http://me:secret-word@there/data/foo/x", "token"),
        ("http://there/data/foo/x#y", "%23"),
        ("http://there/data/foo/x?slice_=1", "%3F"),
        ("http://there/data/foo/x?version=", "%3F"),
        ("http://there/data/foo/x?version=a&version=b", "%3F"),
        ("http://there/data/foo?version=ab", "no dataset"),
    ],
)
def test_what_is_no_location_says_why(text, word) -> None:
    with pytest.raises(InvalidPath, match=word) as wrong:
        parse_location(text)
    assert "secret-word" not in str(wrong.value)
