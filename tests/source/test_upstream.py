import asyncio

import pytest

from caterva2.config import Token
from caterva2.errors import Changed, NotFound, Unauthorized, Unavailable
from caterva2.model.path import DatasetPath
from caterva2.testing.faults import Fault

TOKEN = Token("s3cr3t-t0k3n")


class TestHead:
    async def test_not_found(self, source):
        with pytest.raises(NotFound, match="nothing here"):
            await source.head(DatasetPath("foo", "nothing here"))

    async def test_changed_names_both_versions(self, source, head, path):
        with pytest.raises(Changed) as caught:
            await source.head(path, "f" * 32)
        assert (caught.value.wanted_etag, caught.value.current_etag) == ("f" * 32, head.etag)

    async def test_token(self, server, source_of, path, data):
        server.token = str.__str__(TOKEN)
        with pytest.raises(Unauthorized):
            await source_of(server.url).head(path)
        assert (await source_of(server.url, token=TOKEN).head(path)).size == len(data)

    @pytest.mark.parametrize("kind", ["junk", "flip", "no-etag", "truncate", "etag"])
    async def test_one_bad_answer_is_asked_for_again(self, server, source, kind, path, data):
        server.faults.append(Fault(kind, route="/api/"))
        assert (await source.head(path)).size == len(data)
        assert source.stats.retries == 1

    @pytest.mark.parametrize("kind", ["junk", "flip", "no-etag", "truncate"])
    async def test_bad_answers_mean_unavailable(self, server, source, kind, path, data):
        server.faults.append(Fault(kind, times=2, route="/api/"))
        with pytest.raises(Unavailable, match="twice"):
            await source.head(path)
        assert (await source.head(path)).size == len(data)


class TestUnavailable:
    async def test_nobody_there(self, unused_tcp_port, source_of, path):
        source = source_of(f"http://user:secret@127.0.0.1:{unused_tcp_port}", token=TOKEN)
        with pytest.raises(Unavailable, match=f"http://127.0.0.1:{unused_tcp_port} ") as caught:
            await source.head(path)
        shown = str(caught.value) + repr(caught.value)
        assert "secret" not in shown
        assert TOKEN not in shown

    @pytest.mark.parametrize("kind", ["stall", "stall-midway"])
    async def test_silence(self, server, head, extents, kind, source_of):
        source = source_of(server.url, timeout_s=0.3)
        server.faults.append(Fault(kind))
        with pytest.raises(Unavailable, match="does not answer"):
            async with asyncio.timeout(3):
                await source.read(head, extents[:1])

    async def test_who_waits_behind_a_dead_origin_fails_with_it(self, server, head, extents, source_of, data):
        source = source_of(server.url, timeout_s=0.5, requests=1)
        server.faults.append(Fault("stall", times=100))
        async with asyncio.timeout(3):  # 20 of them in turn would take 10 s
            reads = (source.read(head, [extent]) for extent in extents[:20])
            results = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 20
        server.faults.clear()
        assert await source.read(head, extents[:1]) == [data[: extents[0].size]]

    async def test_busy_says_when_to_come_back(self, server, source, head, extents):
        server.faults.append(Fault("503"))
        with pytest.raises(Unavailable, match=r"503.*busy") as caught:
            await source.read(head, extents[:1])
        assert caught.value.retry_after_s == 7.0

    async def test_server_error(self, server, source, head, extents, data_requests):
        server.faults.append(Fault("500"))
        with pytest.raises(Unavailable, match="500"):
            await source.read(head, extents[:1])
        assert len(data_requests()) == 1
