import pytest

from caterva2.errors import Changed, Corrupt, NotFound
from caterva2.model.path import parse_path
from caterva2.testing.memory import FileSource


@pytest.fixture
def source(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    return FileSource(tmp_path / "x", parse_path("r/x"))


async def test_it_reads_one_file(source):
    head = await source.head(parse_path("r/x"))
    assert await source.head(parse_path("r/x"), head.etag) is head
    (page,) = await source.pages(head, [0])
    assert await source.read(head, [page.chunk_head(0)]) == [b"0123456789"]
    assert (source.extents_read, source.bytes_read, source.pages_made) == (1, 10, 1)
    assert b"".join([piece async for piece in source.stream(head, 2, 5)]) == b"234"


async def test_it_knows_one_version(source):
    with pytest.raises(NotFound):
        await source.head(parse_path("r/y"))
    with pytest.raises(Changed):
        await source.head(parse_path("r/x"), "other")
    with pytest.raises(IndexError):
        await source.pages(await source.head(parse_path("r/x")), [1])
    with pytest.raises(Corrupt):
        source.pread(5, 6)
