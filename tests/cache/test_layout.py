import random
from contextlib import aclosing

import pytest

from caterva2.cache.batches import PIECE_BYTES
from caterva2.errors import Corrupt
from caterva2.model.extents import FILE_EXTENT_BYTES as PAGE
from caterva2.model.path import DatasetPath
from caterva2.testing.samples import write_many


class TestFrames:
    @pytest.fixture(params=["a.b2nd", "b.b2frame"])
    def frame(self, request, origin, array_bytes, frame_bytes):
        path = DatasetPath("foo", request.param)
        origin.publish(path, array_bytes if request.param == "a.b2nd" else frame_bytes)
        return path

    async def test_any_range_streams(self, cached, origin, frame):
        data = origin.data[frame]
        head = await cached.head(frame)
        chance = random.Random(8)
        spans = [sorted(chance.randrange(len(data) + 1) for _ in range(2)) for _ in range(40)]
        for start, stop in [(0, len(data)), *spans]:
            assert b"".join([piece async for piece in cached.stream(head, start, stop)]) == data[start:stop]
        assert set(origin.reads.values()) == {1}

    async def test_small_extents_come_together(self, cached, origin, tmp_path):
        path = DatasetPath("foo", "many.b2nd")
        data = write_many(tmp_path / path.name, (20, 50)).read_bytes()
        origin.publish(path, data)
        head = await cached.head(path)
        pieces = [piece async for piece in cached.stream(head, 10, head.size)]
        assert b"".join(pieces) == data[10:]
        assert head.nchunks == 1000
        assert len(pieces) <= len(data) // PIECE_BYTES + 2

    async def test_a_small_range_fetches_little(self, cached, origin, frame):
        head = await cached.head(frame)
        middle = head.size // 3
        pieces = [piece async for piece in cached.stream(head, middle, middle + 10)]
        assert b"".join(pieces) == origin.data[frame][middle : middle + 10]
        assert origin.bytes_read < head.size / 4

    async def test_filled_it_is_the_file(self, cached, origin, frame, mirror_files):
        await cached.fill(await cached.head(frame))
        state = cached.state(frame)
        assert (state.complete, state.cached_bytes) == (True, len(origin.data[frame]))
        (data_file,) = [file for file in mirror_files() if file.suffix == ".data"]
        assert data_file.read_bytes() == origin.data[frame]
        assert set(origin.reads.values()) == {1}


class TestStream:
    async def test_little_is_read_ahead(self, cached, origin, until):
        path = DatasetPath("foo", "large")
        data = random.Random(9).randbytes(160 * PAGE)
        origin.publish(path, data)
        head = await cached.head(path)
        async with aclosing(cached.stream(head, 0, head.size)) as stream:
            sent = len(await anext(stream))
            await until(lambda: origin.bytes_read == 8 * 2**20)
            async for piece in stream:
                sent += len(piece)
                assert origin.bytes_read - sent <= 8 * 2**20
        assert sent == len(data)

    async def test_a_manifest_that_leaves_bytes_out(self, cached, origin, path, monkeypatch):
        head = await cached.head(path)
        (page,) = await cached.pages(head, [0])
        monkeypatch.setattr(
            type(page), "chunk_extents", lambda page, n: [page.chunk_head(n)] if n != 3 else []
        )
        with pytest.raises(Corrupt, match=str(3 * PAGE)):
            async for _ in cached.stream(head, 0, head.size):
                pass
