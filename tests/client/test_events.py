"""Event streams: parsed whatever the pieces, resumed, ended."""

from __future__ import annotations

import itertools
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import caterva2.client.events as module
from caterva2.client import Event
from caterva2.client.events import EventParser, EventStream
from caterva2.errors import Caterva2Error, InvalidPath, Unauthorized, Unavailable
from caterva2.frame.write import write_array


def encoded(number: int, kind: str = "changed", path: str = "foo/é.b2nd") -> bytes:
    data = {
        "id": f"log-{number}",
        "kind": kind,
        "path": path,
        "time": 5.0,
        "etag": "ab",
        "generation": number,
    }
    return f"id: log-{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


STREAM = b": hello\nid: log-0\n\n" + encoded(1) + b": alive\n\n" + encoded(2)
STREAM += (
    encoded(3, "missed", "*") + b'data: {"kind": "from later", "path": "foo", "time": 6, "more": []}\n\n'
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=6), st.booleans())
def test_events_are_found_whatever_the_pieces(cuts, windows) -> None:
    stream = STREAM.replace(b"\n", b"\r\n") if windows else STREAM
    parser = EventParser()
    found = []
    bounds = [0, *sorted(cuts), len(stream)]
    for start, stop in itertools.pairwise(bounds):
        found += parser.feed(stream[start:stop])
    assert [(event.kind, event.path, event.id, event.generation) for event in found] == [
        ("changed", "foo/é.b2nd", "log-1", 1),
        ("changed", "foo/é.b2nd", "log-2", 2),
        ("missed", "*", "log-3", 3),
        ("from later", "foo", None, None),
    ]
    assert parser.last_id == "log-3"


def test_the_reset_of_a_root_names_it() -> None:
    (event,) = EventParser().feed(encoded(3, "reset", "foo"))
    assert (event.kind, event.path, event.id) == ("reset", "foo", "log-3")


@pytest.mark.parametrize("data", [b"data: {}\n\n", b"data: nope\n\n", b"data: [1]\n\n"])
def test_an_event_that_is_none_is_an_error(data) -> None:
    with pytest.raises(Caterva2Error, match="event"):
        EventParser().feed(data)


def next_within(stream: EventStream, seconds: float = 10) -> Event:
    timer = threading.Timer(seconds, stream.close)
    timer.start()
    try:
        return next(stream)
    finally:
        timer.cancel()


def test_a_real_change_is_heard(running, client, root) -> None:
    with client.events("foo/heard*") as stream:
        write_array(root / "heard.b2nd", range(10))
        event = next_within(stream)
        assert (event.kind, event.path) == ("created", "foo/heard.b2nd")
        assert event.etag == client.info("foo/heard.b2nd")["etag"]
        (root / "heard.b2nd").unlink()
        assert next_within(stream).kind == "deleted"


def test_a_stream_begins_behind_an_event(client, root) -> None:
    with client.events("foo/since*") as stream:
        for name in ("since1.b2nd", "since2.b2nd"):
            write_array(root / name, range(10))
        seen = [next_within(stream) for _ in range(2)]
    with client.events("foo/since*", since=seen[0].id) as stream:
        assert next_within(stream) == seen[1]
    with client.events("foo/since*", since="another-1") as stream:
        missed = next_within(stream)
        assert (missed.kind, missed.path) == ("missed", "foo/since*")
    with client.events("foo/since*", since=missed.id) as stream:
        (root / "since1.b2nd").unlink()
        assert next_within(stream).kind == "deleted"


def test_a_connection_that_is_lost_loses_no_event(running, client, root) -> None:
    lost = []
    with client.events("foo/cut*", on_loss=lost.append) as stream:
        write_array(root / "cut1.b2nd", range(10))
        assert next_within(stream).path == "foo/cut1.b2nd"
        stream._under_way.cut()
        write_array(root / "cut2.b2nd", range(10))
        entries = running.cluster.subscriber.catalogue.roots["foo"].entries
        running.wait_for(lambda: "cut2.b2nd" in entries)
        event = next_within(stream)
        assert (event.kind, event.path) == ("created", "foo/cut2.b2nd")
        assert len(lost) == 1


def test_closing_ends_a_stream_that_waits(client) -> None:
    stream = client.events()
    threading.Timer(0.05, client.close).start()
    assert list(stream) == []
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("pattern", ["", "/foo", "a\nb"])
def test_a_pattern_that_is_none_is_refused(client, pattern) -> None:
    with pytest.raises(InvalidPath):
        client.events(pattern)


class Script:
    """Streams some bytes for each connection, and then ends it."""

    def __init__(self, send, *answers: bytes | int) -> None:
        self.send, self.answers = send, list(answers)

    def __call__(self, handler) -> None:
        answer = self.answers.pop(0) if self.answers else 503
        handler.close_connection = True
        if isinstance(answer, int):
            self.send(handler, b"", answer)
        else:
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(answer)


def test_a_lost_stream_is_resumed_behind_the_last_event(serving, monkeypatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    hello = b": log-0\nid: log-0\n\n"
    first = hello + encoded(1) + encoded(2)[:30]  # cut within the second
    server, transport = serving(Script(serving.send, first, 503, hello.replace(b"0", b"2"), encoded(3)))
    lost = []
    stream = EventStream(transport, "foo", on_loss=lost.append)
    assert next_within(stream).id == "log-1"
    assert next_within(stream).id == "log-3"
    stream.close()
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in server.requests[:4]] == [
        None,
        "log-1",
        "log-1",
        "log-2",
    ]
    assert lost
    assert server.url in lost[0]


def test_what_cannot_begin_is_an_error_at_once(serving) -> None:
    _, transport = serving(Script(serving.send, 401, 503))
    with pytest.raises(Unauthorized):
        EventStream(transport, "foo")
    with pytest.raises(Unavailable):
        EventStream(transport, "foo")


def test_a_stream_that_ends_before_it_begins(serving, monkeypatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    _, transport = serving(Script(serving.send, b"", encoded(1)))
    with pytest.raises(Unavailable, match="ended"):
        EventStream(transport, "foo")


def test_a_refusal_later_ends_the_stream_with_its_reason(serving, monkeypatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    _, transport = serving(Script(serving.send, b": hello\n\n", 401))
    stream = EventStream(transport, "foo")
    with pytest.raises(Unauthorized):
        next_within(stream)
