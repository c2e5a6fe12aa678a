from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from caterva2.http import events as module
from caterva2.model.root import Entry
from caterva2.testing.waiting import until


def entry(number: int) -> Entry:
    return Entry(f"{number:032x}", number, 1, "file", 0.0)


@asynccontextmanager
async def stream(running, query: str = "", **headers: str):
    async with running.session.get(f"{running.url}/api/events{query}", headers=headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = aiter(response.content)
        await anext(lines)  # the comment: it is connected

        async def next_event() -> dict:
            event: dict = {}
            async with asyncio.timeout(5):
                async for raw in lines:
                    line = raw.decode().rstrip("\n")
                    if not line:
                        if "event" in event:
                            return event
                        event = {}
                        continue
                    name, _, value = line.partition(": ")
                    event[name] = json.loads(value) if name == "data" else value
            raise AssertionError("the stream ended")

        yield next_event


async def test_differences_are_streamed(running, files) -> None:
    async with stream(running) as next_event:
        files.catalogue.apply("foo", "x", entry(5))
        event = await next_event()
        assert event["event"] == "created"
        assert event["data"]["path"] == "foo/x"
        assert event["data"]["generation"] == 5
        files.catalogue.apply("foo", "x", entry(6))
        assert (await next_event())["event"] == "changed"
        files.catalogue.apply("foo", "x", None)
        assert (await next_event())["event"] == "deleted"
        files.catalogue.set_state("foo", "offline")
        assert (await next_event())["data"]["path"] == "foo"
        files.catalogue.reset("foo", 1000)
        event = await next_event()
        assert (event["event"], event["data"]["path"]) == ("reset", "foo")


async def test_a_pattern_selects(running, files) -> None:
    async with stream(running, "?pattern=foo/dir/*") as next_event:
        files.catalogue.apply("foo", "x", entry(5))
        files.catalogue.apply("foo", "dir/x", entry(5))
        assert (await next_event())["data"]["path"] == "foo/dir/x"
    assert (await running.problem("/api/events?pattern=/"))[0] == 400


async def test_what_happens_to_a_root_is_named_by_patterns_below_it(running, files) -> None:
    async with stream(running, "?pattern=foo/dir/*") as next_event:
        files.catalogue.set_state("foo", "offline")
        files.catalogue._emit("another kind", "foo", None)  # type: ignore[arg-type]
        assert (await next_event())["event"] == "offline"
        assert (await next_event())["data"]["kind"] == "another kind"


async def test_a_stream_resumes(running, files) -> None:
    files.catalogue.apply("foo", "a", entry(1))
    last = files.catalogue.last_event_id
    files.catalogue.apply("foo", "b", entry(2))
    async with stream(running, **{"Last-Event-ID": last}) as next_event:
        assert (await next_event())["data"]["path"] == "foo/b"
    for unknown in ("other-3", "x", f"{last}9999"):
        async with stream(running, **{"Last-Event-ID": unknown}) as next_event:
            missed = await next_event()
            assert missed["event"] == missed["data"]["kind"] == "missed"
            assert missed["data"]["path"] == "*"
            assert missed["id"] == missed["data"]["id"] == files.catalogue.last_event_id


async def test_a_slow_client_is_told_to_look_again(running, files, monkeypatch) -> None:
    monkeypatch.setattr(module, "QUEUE_EVENTS", 5)
    async with stream(running) as next_event:
        for number in range(100):
            files.catalogue.apply("foo", f"n{number}", entry(1))
        seen = [await next_event() for _ in range(2)]
        assert "missed" in [event["event"] for event in seen]


async def test_a_client_that_goes_is_forgotten(running, files) -> None:
    async with stream(running):
        await until(lambda: len(files.catalogue._listeners) == 1)
    await until(lambda: not files.catalogue._listeners)


@pytest.mark.timeout(20)
async def test_stopping_the_server_ends_the_streams(running, files) -> None:
    async with stream(running) as next_event:
        stopping = asyncio.create_task(running.server.__aexit__())
        with pytest.raises(AssertionError, match="ended"):
            await next_event()
        await asyncio.wait_for(stopping, 4)
