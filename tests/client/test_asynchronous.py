"""The asynchronous client: what the synchronous one reads, and nothing left behind when it is cancelled."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import caterva2
import caterva2.client.async_dataset as module
from caterva2.client import async_download
from caterva2.client.asynchronous import AsyncArray, AsyncClient, AsyncFile, AsyncFrame
from caterva2.client.download import PartFile, Version
from caterva2.client.protocol import Request
from caterva2.errors import (
    Caterva2Error,
    Changed,
    InvalidPath,
    InvalidSelection,
    NotFound,
    Unauthorized,
    Unavailable,
)
from caterva2.frame.write import write_array
from caterva2.model.selection import select
from caterva2.testing.waiting import until


@pytest.fixture
async def there(running):
    async with AsyncClient(running.url) as client:
        yield client


# -- the same as the other one ---------------------------------------------------------------------


async def test_what_is_published_is_listed_alike(there, client) -> None:
    assert await there.roots() == client.roots()
    assert await there.list() == client.list()
    assert await there.list("foo") == client.list("foo")
    assert await there.list("foo/dir1/") == client.list("foo/dir1")
    assert await there.list("foo/cube.b2nd") == client.list("foo/cube.b2nd")
    assert await there.row("foo/nothing") == client.list("foo/nothing")[0]
    assert there.url("foo/cube.b2nd") == client.url("foo/cube.b2nd")
    assert (there.subscriber, repr(there)) == (client.subscriber, f"<AsyncClient of {client.subscriber}>")
    for path in ("foo/no", "foo/cube.b2n", "foo/cube.b2ndx", "no", "no/x"):
        with pytest.raises(NotFound):
            await there.list(path)


async def test_every_kind_is_described_alike(there, client, truths) -> None:
    for path, kind in (("cube.b2nd", AsyncArray), ("f.b2frame", AsyncFrame), ("nothing", AsyncFile)):
        mine, other = await there.open(f"foo/{path}"), client[f"foo/{path}"]
        assert type(mine) is kind
        assert mine.info == other.info
        for name in ("path", "kind", "etag", "generation", "mtime", "attrs", "url"):
            assert getattr(mine, name) == getattr(other, name)
        assert len(mine) == len(other)
        assert repr(mine) == repr(other).replace("<", "<Async", 1)
        assert await mine.refresh() is False
    assert caterva2.AsyncClient is AsyncClient
    for name, truth in truths.items():
        array = await there.open(f"foo/{name}")
        assert (array.shape, array.dtype, array.nbytes) == (truth.shape, truth.dtype, truth.nbytes)
        assert (await array[...]).tobytes() == truth.tobytes(), name


def selections(shape):
    """Draw what numpy takes between brackets."""

    def part(length):
        bound = st.none() | st.integers(-length - 2, length + 2)
        steps = st.none() | st.integers(-7, 7).filter(bool)
        return st.integers(-length, length - 1) | st.builds(slice, bound, bound, steps)

    keys = st.tuples(*map(part, shape))
    lists = st.lists(st.integers(0, min(shape) - 1), min_size=1, max_size=4)
    return (
        keys
        | keys.map(lambda key: (*key[:-1], ...))
        | st.tuples(lists, *[st.just(slice(None))] * (len(shape) - 1))
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=selections((12, 10, 14)), part_bytes=st.sampled_from([64, 500, 1 << 24]))
async def test_a_part_is_what_the_other_one_gives(running, client, monkeypatch, key, part_bytes) -> None:
    monkeypatch.setattr(module, "PART_BYTES", part_bytes)
    want = client["foo/cube.b2nd"][key]
    async with AsyncClient(running.url) as there:
        got = await there.read("foo/cube.b2nd", key)
    assert np.array_equal(got, want)
    assert (np.shape(got), got.dtype, type(got)) == (np.shape(want), want.dtype, type(want))


@pytest.mark.parametrize(
    "key",
    [
        np.arange(60 * 50).reshape(60, 50) % 7 == 0,
        np.arange(60) % 2 == 0,
        (np.arange(60) > 55, [3] * 4),
        ([0, 5, -1], [1, 2, 3]),
        (..., [7, 8]),
        np.ix_([1, 40, 59], [0, 49]),
    ],
    ids=str,
)
async def test_lists_and_masks_select_alike(there, truths, key) -> None:
    truth = truths["ints.b2nd"][key]
    got = await there.read("foo/ints.b2nd", key)
    assert np.array_equal(got, truth)
    assert (got.shape, got.dtype) == (truth.shape, truth.dtype)


async def test_fields_are_read_alone(there, truths) -> None:
    array, truth = await there.open("foo/records.b2nd"), truths["records.b2nd"]
    for name in truth.dtype.names:
        field = array[name]
        assert (field.shape, field.dtype) == (truth[name].shape, truth[name].dtype)
        assert np.array_equal(await field[...], truth[name])
        assert await field[1] == truth[name][1]
        assert (await field[[1, 0]]).tolist() == truth[name][[1, 0]].tolist()
    assert repr(array["b"]) == "<AsyncField b of foo/records.b2nd: (2,) float64>"
    with pytest.raises(InvalidSelection, match="no field"):
        array["no"]


async def test_frames_and_files_are_read_alike(there, client, monkeypatch) -> None:
    for part_bytes in (100, 1 << 24):
        monkeypatch.setattr(module, "PART_BYTES", part_bytes)
        for path in ("foo/f.b2frame", "foo/text é #?%.bin"):
            mine, other = await there.open(path), client[path]
            for key in (0, -1, slice(3, 300), slice(-20, None), slice(5, 5)):
                assert await mine[key] == other[key]
            for arguments in ((0, 0), (3,), (3, 70), (-2,)):
                assert await mine.read(*arguments) == other.read(*arguments)
    assert await (await there.open("foo/nothing")).read() == b""


async def test_many_reads_at_once(there, truths) -> None:
    array, truth = await there.open("foo/ints.b2nd"), truths["ints.b2nd"]
    rows = await asyncio.gather(*[array[n] for n in range(60)])
    assert np.array_equal(rows, truth)
    everything = select((), truth.shape)
    assert np.array_equal(await array.read(everything), truth)


async def test_downloads_are_the_files(there, client, root, tmp_path) -> None:
    told = []
    for path in ("foo/text é #?%.bin", "foo/cube.b2nd", "foo/nothing"):
        done = await there.download(path, tmp_path / "d", lambda *numbers: told.append(numbers))
        file = tmp_path / "d" / path.removeprefix("foo/")
        original = root / path.removeprefix("foo/")
        assert file.read_bytes() == original.read_bytes()
        assert file.stat().st_mtime_ns == original.stat().st_mtime_ns
        assert (done.path, done.bytes, done.fetched_bytes) == (path, file.stat().st_size, file.stat().st_size)
    assert told[-1][0] == told[-1][1]
    assert {file.suffix for file in (tmp_path / "d").iterdir()} == {".bin", ".b2nd", ""}


async def test_a_download_goes_on_where_another_was_broken_off(
    there, running, client, root, tmp_path
) -> None:
    """Whichever client began it."""
    name = "text é #?%.bin"
    etag, size = client[f"foo/{name}"].etag, (root / name).stat().st_size
    (tmp_path / f"{name}.part").write_bytes((root / name).read_bytes()[:1000])
    note = f'{{"path": "foo/{name}", "etag": "{etag}", "size": {size}}}'
    (tmp_path / f"{name}.part.json").write_text(note)
    done = await there.download(f"foo/{name}", tmp_path)
    assert (done.bytes, done.fetched_bytes) == (size, size - 1000)
    assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


async def test_events_come_as_they_happen(there, client, root) -> None:
    def listening() -> bool:
        metrics = client._transport.call(Request("GET", "/metrics")).body
        return re.search(rb"^caterva2_subscriber_event_streams 1", metrics, re.MULTILINE) is not None

    async with aclosing(there.events("foo/seen*")) as events:
        first = asyncio.ensure_future(anext(events))
        await until(listening)
        write_array(root / "seen.b2nd", np.arange(3))
        event = await first
        assert (event.kind, event.path) == ("created", "foo/seen.b2nd")
        (root / "seen.b2nd").unlink()
        assert (await anext(events)).kind == "deleted"
    with pytest.raises(InvalidPath):
        there.events("/")


async def test_events_end_when_the_client_is_closed(there, running) -> None:
    streams = asyncio.ensure_future(anext(there.events("foo/nobody*"), None))
    await until(lambda: there._transport._session is not None)
    await there.close()
    assert await streams is None


# -- errors ----------------------------------------------------------------------------------------


async def test_errors_are_of_the_same_types(there, running, truths) -> None:
    with pytest.raises(NotFound):
        await there.open("foo/no")
    with pytest.raises(InvalidPath):
        await there.open("foo")
    array = await there.open("foo/ints.b2nd")
    for key in (60, (0, 0, 0), None, "x", [0.5], [True] * 7):
        with pytest.raises(InvalidSelection):
            array[key]
    with pytest.raises(InvalidSelection):
        await array[[0, 60]]
    async with AsyncClient("http://127.0.0.1:9") as nobody:
        with pytest.raises(
            Unavailable, match=r"cannot reach the subscriber at http://127.0.0.1:9: .*running"
        ):
            await nobody.roots()


async def test_a_version_that_is_gone_is_said(there, running, root) -> None:
    write_array(root / "going.b2nd", np.arange(1000.0), chunks=[100])
    catalogue = running.cluster.subscriber.catalogue
    await until(lambda: "going.b2nd" in catalogue.roots["foo"].entries)
    array = await there.open("foo/going.b2nd")
    assert (await array[:100]).sum() == 4950
    write_array(root / "going.b2nd", np.ones(2000, np.float32), chunks=[50])
    await until(lambda: catalogue.roots["foo"].entries["going.b2nd"].etag != array.etag)
    with pytest.raises(Changed) as raised:
        await array[500:600]
    assert raised.value.wanted_etag == array.etag
    assert raised.value.current_etag == catalogue.roots["foo"].entries["going.b2nd"].etag
    assert (await there.read("foo/going.b2nd", slice(3))).tolist() == [1, 1, 1]
    assert await array.refresh() is True
    assert (await array[...]).sum() == 2000


async def test_a_client_belongs_to_one_loop(running) -> None:
    client = AsyncClient(running.url)
    await client.roots()
    with pytest.raises(RuntimeError, match="one event loop"):
        await asyncio.to_thread(asyncio.run, client.roots())
    await client.close()
    assert len(await client.roots()) == 1  # opens again, as the other one does
    await client.close()


def answering(serving, answer):
    server, _ = serving(answer)
    return server, AsyncClient(server.url, token="a-secret", timeout_s=5)


async def test_the_token_is_sent_and_not_shown(serving) -> None:
    server, client = answering(serving, lambda handler: serving.send(handler, b"{}", 401))
    async with client:
        with pytest.raises(Unauthorized):
            await client.roots()
        assert "secret" not in repr(client)
    assert server.requests[0][2]["Authorization"] == "Bearer a-secret"
    assert server.requests[0][2]["User-Agent"] == "caterva2"


@pytest.mark.parametrize("answer", [b"no json", b"[1]", b'{"foo": 3}', b""])
async def test_other_services_are_told_from_ours(serving, answer) -> None:
    _, client = answering(serving, lambda handler: serving.send(handler, answer))
    async with client:
        with pytest.raises(Caterva2Error, match="is that the address of a Caterva2 subscriber"):
            await client.roots()


async def test_an_answer_that_breaks_off_is_asked_for_again(serving) -> None:
    def answer(handler) -> None:
        data = b"0123456789"
        if len(server.requests) == 1:
            handler.close_connection = True
            serving.send(handler, data[:4], 206, Content_Length="10")
        else:
            serving.send(handler, data, 206)

    server, client = answering(serving, answer)
    async with client:
        file = AsyncFile(client._transport, INFO | {"kind": "file", "size": 10})
        assert await file.read() == b"0123456789"
    assert len(server.requests) == 2


INFO = {
    "path": "foo/x",
    "etag": "e",
    "kind": "array",
    "shape": [1 << 20],
    "chunks": [1 << 18],
    "blocks": [1 << 16],
    "dtype": "float64",
}


@pytest.mark.parametrize("body", [b"", b"\x93NUMPY junk and more", b"\xff" * 4000])
async def test_what_is_no_array_is_refused(serving, body) -> None:
    _, client = answering(serving, lambda handler: serving.send(handler, body))
    async with client:
        array = AsyncArray(client._transport, INFO)
        with pytest.raises(Caterva2Error):
            await array[:10]


# -- cancelling ------------------------------------------------------------------------------------


@dataclass
class Hanging:
    """Begins an answer, and sends no more of it; knows when it began, and when it was given up."""

    begun: threading.Event
    left: threading.Event

    def __call__(self, handler, send, data) -> None:
        handler.send_response(206 if "Range" in handler.headers else 200)
        handler.send_header("Content-Length", "100000000")
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()
        self.begun.set()
        handler.connection.settimeout(20)
        if not handler.connection.recv(1):
            self.left.set()
        handler.close_connection = True


@pytest.fixture
def hanging():
    return Hanging(threading.Event(), threading.Event())


@pytest.mark.parametrize("of", ["array", "file", "points"])
async def test_a_read_that_is_cancelled_leaves_nothing(serving, hanging, of) -> None:
    header = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + f"{{'descr':'<f8','fortran_order':False,'shape':({1 << 20},)}}".ljust(117).encode()
        + b"\n"
    )
    _, client = answering(serving, partial(hanging, send=serving.send, data=header + bytes(5000)))
    async with client:
        if of == "file":
            reading = AsyncFile(client._transport, INFO | {"kind": "file", "size": 100_000_000}).read()
        else:
            reading = AsyncArray(client._transport, INFO)[[1] if of == "points" else ...]
        task = asyncio.ensure_future(reading)
        await asyncio.to_thread(hanging.begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(hanging.left.wait, 10)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("caterva2-receive")])


async def test_a_download_that_is_cancelled_keeps_what_came(serving, hanging, tmp_path) -> None:
    _, client = answering(serving, partial(hanging, send=serving.send, data=b"x" * 3_000_000))
    version = Version("foo/x", "e", 100_000_000, 0)
    async with client:
        with PartFile(tmp_path / "x") as part:
            part.begin(version)
            filling = asyncio.ensure_future(async_download.fill(client._transport, version, part, None))
            await until(lambda: part.size() >= 2_000_000)
            filling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await filling
            assert (tmp_path / "x.part").read_bytes() == b"x" * part.size()
        assert await asyncio.to_thread(hanging.left.wait, 10)
