from contextlib import closing

import numpy as np
import pytest

from caterva2.cache.census import all_spans, count_extents, present_bytes, stored_manifest
from caterva2.cache.index import Index
from caterva2.model.path import DatasetPath
from caterva2.testing.contracts import all_extents
from caterva2.testing.origin import MemoryOrigin


@pytest.fixture(params=["a.b2nd", "b.b2frame", "c.bin", "empty"])
async def version(request, array_bytes, frame_bytes, data):
    contents = {"a.b2nd": array_bytes, "b.b2frame": frame_bytes, "c.bin": data, "empty": b""}
    path = DatasetPath("foo", request.param)
    origin = MemoryOrigin({path: contents[request.param]})
    head = await origin.head(path)
    return head, await origin.pages(head, range(head.npages)), await all_extents(origin, head)


def test_all(version):
    head, pages, extents = version
    numbers = np.array(sorted(extent.number for extent in extents), np.int64)
    nbytes, unknown = present_bytes(head, pages, numbers)
    assert nbytes == head.size
    assert unknown.size == 0
    assert count_extents(head, pages) == len(extents)


def test_some(version):
    head, pages, extents = version
    some = extents[::3]
    numbers = np.array(sorted(extent.number for extent in some), np.int64)
    assert present_bytes(head, pages, numbers)[0] == sum(extent.size for extent in some)


def test_of_pages_that_are_not_known(version):
    head, _, extents = version
    numbers = np.array(sorted(extent.number for extent in extents), np.int64)
    nbytes, unknown = present_bytes(head, [], numbers)
    assert nbytes == sum(extent.size for extent in head.fixed)
    assert len(unknown) == len(extents) - len(head.fixed)


def test_where_extents_are(version):
    head, pages, extents = version
    extents = sorted(extents, key=lambda extent: extent.number)
    spans = all_spans(head, pages)
    assert spans.numbers.tolist() == [extent.number for extent in extents]
    assert spans.offsets.tolist() == [extent.offset for extent in extents]
    assert spans.sizes.tolist() == [extent.size for extent in extents]
    assert all_spans(head, []).sizes.sum() == sum(extent.size for extent in head.fixed)


def test_what_the_index_has_of_a_manifest(version, tmp_path):
    head, pages, extents = version
    numbers = np.array(sorted(extent.number for extent in extents), np.int64)
    encoded = head.encode()
    with closing(Index(tmp_path / "index.sqlite")) as index:

        def add(etag, encoded):
            nextents = head.nextents
            return index.add(
                head.path, etag, generation=1, size=head.size, nextents=nextents, head=encoded, now=0.0
            )

        one = add("sound", encoded)
        index.add_pages(one, [(page.number, page.encode()) for page in pages])
        found, stored = stored_manifest(index, one)
        assert found.encode() == encoded
        assert [page.encode() for page in stored] == [page.encode() for page in pages]
        assert len(stored_manifest(index, one, numbers)[1]) == len(pages)
        assert stored_manifest(index, one, numbers[:0])[1] == []
        assert stored_manifest(index, add("damaged", b"no head")) == (None, [])
        index.add_pages(one, [(0, b"no page")])
        found, stored = stored_manifest(index, one)
        assert (found.encode(), [page.number for page in stored]) == (
            encoded,
            [page.number for page in pages[1:]],
        )
        assert stored_manifest(index, 99) == (None, [])
