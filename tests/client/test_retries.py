"""What is tried again, how often, and what is not."""

from __future__ import annotations

import socket
import threading

import pytest

from caterva2.client.protocol import Reply, Request
from caterva2.client.retries import PAUSES_S, Retries, busy_s
from caterva2.client.transport import Transport
from caterva2.client.underway import UnderWay
from caterva2.errors import Unavailable

GET = Request("GET", "/api/roots")
FOLLOW = Request("POST", "/api/follow/foo")


@pytest.mark.parametrize(
    ("status", "after", "wait_s"),
    [
        (429, None, 0),
        (429, "0", 0),
        (429, "3", 3),
        (429, "60", None),  # nobody waits for that: the error says when
        (503, "1", 1),
        (503, "2", None),  # as a subscriber says whose publisher is offline
        (503, None, None),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (503, "-1", None),
        (503, "9" * 400, None),
        (500, "0", None),
        (502, "0", None),
        (200, "0", None),
    ],
)
def test_only_who_is_busy_for_a_moment_is_asked_again(status, after, wait_s) -> None:
    headers = {} if after is None else {"Retry-After": after}
    assert busy_s(Reply(status, headers, b"")) == wait_s


def test_pauses_grow_and_end() -> None:
    for _ in range(20):
        retries = Retries(60)
        pauses = [retries.next_s() for _ in PAUSES_S]
        assert pauses == sorted(pauses)
        assert all(most / 2 <= pause <= most for pause, most in zip(pauses, PAUSES_S, strict=True))
        assert retries.next_s() is None


def test_nobody_waits_longer_than_the_time_out() -> None:
    assert Retries(0.01).next_s() is None
    assert Retries(2).next_s(least_s=3) is None
    assert Retries(2).next_s(least_s=1) > 1


def test_who_was_stopped_does_not_wait() -> None:
    under_way = UnderWay()
    under_way.stop()
    assert not Retries(60).wait(under_way, least_s=50)


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (503, {"Retry_After": "0"})])
def test_a_service_that_is_busy_is_asked_again(serving, status, headers) -> None:
    def answer(handler) -> None:
        busy = len(server.requests) < 3
        serving.send(handler, b"{}", status if busy else 200, **(headers if busy else {}))

    server, transport = serving(answer)
    assert transport.call(GET).status == 200
    assert len(server.requests) == 3


def test_a_service_that_stays_busy_is_given_up(serving) -> None:
    server, transport = serving(lambda handler: serving.send(handler, b"", 429))
    with pytest.raises(Unavailable, match="429"):
        transport.call(GET)
    assert len(server.requests) == 1 + len(PAUSES_S)
    with pytest.raises(Unavailable):
        transport.call(FOLLOW)
    assert len(server.requests) == 2 + len(PAUSES_S)  # what changes something is sent once


def test_what_does_not_pass_is_said_at_once(serving) -> None:
    """A publisher that is offline, a token that is wrong, a server error."""
    for status in (500, 503, 401, 404):
        server, transport = serving(
            lambda handler, status=status: serving.send(handler, b"", status, Retry_After="5")
        )
        with pytest.raises(Exception, match=str(status)):
            transport.call(GET)
        assert len(server.requests) == 1


def test_a_service_that_is_restarted_is_found_again() -> None:
    """It was met before; the first attempt is refused, and before the second one it is there."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # nobody listens
        transport = Transport(f"http://127.0.0.1:{place.getsockname()[1]}", None, 5)
        connect, tried, service = transport._wire._connect, [], threading.Thread(target=_answer, args=[place])

        def listening_from_the_second_on(connect_s: float) -> socket.socket:
            tried.append(1)
            if len(tried) == 2:
                place.listen()
                service.start()
            return connect(connect_s)

        transport._wire._connect = listening_from_the_second_on
        transport._has_met = True
        assert transport.call(FOLLOW).body == b"{}"  # nothing was sent before: so it may be sent
        service.join()
        transport.close()
    assert len(tried) == 2


def test_a_service_that_was_never_there_is_not_waited_for() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # nobody listens
        transport = Transport(f"http://127.0.0.1:{place.getsockname()[1]}", None, 5)
        connect, tried = transport._wire._connect, []
        transport._wire._connect = lambda connect_s: tried.append(1) or connect(connect_s)
        with pytest.raises(Unavailable, match="is it running"):
            transport.call(GET)
        transport.close()
    assert len(tried) == 1


def _answer(place: socket.socket) -> None:
    connection, _ = place.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


def test_a_large_answer_may_take_longer_to_begin(serving) -> None:
    """The time-out is that of a small one, and what comes for a megabyte is later than that."""
    late = threading.Event()

    def answer(handler) -> None:
        late.wait(0.6)
        serving.send(handler, b"{}")

    _, transport = serving(answer, timeout_s=0.2)
    with pytest.raises(Unavailable, match="in time"):
        transport.call(GET)
    with transport.open(GET, nbytes=1 << 20) as body:
        assert body.read() == b"{}"
    late.set()
