"""Connections that are refused, die, or fall silent."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from caterva2.client.protocol import Request
from caterva2.client.retries import PAUSES_S
from caterva2.client.transport import Transport
from caterva2.config import Token
from caterva2.errors import Caterva2Error, NotFound, Unavailable

GET = Request("GET", "/api/roots")


def test_an_answer_has_status_headers_and_body(serving) -> None:
    server, transport = serving(lambda handler: serving.send(handler, b"hello", X_Some="thing"))
    reply = transport.call(Request("GET", "/api/x%20y?a=%23", {"Range": "bytes=1-2"}))
    assert (reply.status, reply.headers["x-some"], reply.body) == (200, "thing", b"hello")
    method, target, headers, _ = server.requests[0]
    assert (method, target, headers["Range"]) == ("GET", "/api/x%20y?a=%23", "bytes=1-2")
    assert "Authorization" not in headers


def test_a_url_with_a_path_is_a_prefix(serving) -> None:
    server, _ = serving(lambda handler: serving.send(handler, b"{}"))
    transport = Transport(f"{server.url}/behind/a/proxy", None, 5)
    transport.call(GET)
    transport.close()
    assert server.requests[0][1] == "/behind/a/proxy/api/roots"


def test_the_token_is_sent_and_not_shown(serving) -> None:
    server, _ = serving(lambda handler: serving.send(handler, b"{}"))
    transport = Transport(server.url, Token("correct-horse"), 5)
    transport.call(GET)
    transport.close()
    assert server.requests[0][2]["Authorization"] == "Bearer correct-horse"
    assert "correct-horse" not in server.requests[0][1]


def test_an_error_is_raised_and_the_connection_used_again(serving) -> None:
    body = json.dumps({"type": "urn:caterva2:problem:not-found", "detail": "no x", "path": "foo/x"}).encode()
    ports = []

    def answer(handler) -> None:
        ports.append(handler.client_address)
        serving.send(handler, body, 404)

    _, transport = serving(answer)
    for _ in range(3):
        with pytest.raises(NotFound, match="no x"):
            transport.call(GET)
    assert len(set(ports)) == 1


def test_a_body_that_is_not_read_to_its_end_spoils_nothing(serving) -> None:
    _, transport = serving(lambda handler: serving.send(handler, b"0123456789" * 100_000))
    for _ in range(3):
        with transport.open(GET) as body:
            assert body.read_exactly(3) == b"012"


def test_redirects_are_not_followed(serving) -> None:
    server, transport = serving(lambda handler: serving.send(handler, b"", 302, Location="http://elsewhere/"))
    with pytest.raises(Exception, match="302"):
        transport.call(GET)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "request_", [Request("GET", "/x", {"If-Match": '"a"\r\nX: y'}), Request("GET", "/x\r\n\r\nGET /y")]
)
def test_no_request_is_smuggled_into_another(serving, request_) -> None:
    """An etag is what a service says: it might be anything."""
    server, transport = serving(lambda handler: serving.send(handler, b"{}"))
    with pytest.raises(Caterva2Error, match="cannot be asked for"):
        transport.call(request_)
    assert server.requests == []


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        transport = Transport(url, None, 5)
        with pytest.raises(
            Unavailable, match=r"cannot reach the subscriber at .*refused.*cat2 subscriber"
        ) as no:
            transport.call(GET)
        transport.close()
    assert url in str(no.value)


def test_a_name_that_nobody_knows() -> None:
    transport = Transport("http://no-such-host.invalid:8002", None, 5)
    with pytest.raises(
        Unavailable, match=r"cannot reach the subscriber at http://no-such-host\.invalid:8002"
    ):
        transport.call(GET)
    transport.close()


def test_silence_ends_after_the_time_out(serving) -> None:
    silent = threading.Event()
    _, transport = serving(lambda handler: silent.wait(10), timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer in time"):
        transport.call(GET)
    assert time.monotonic() - began < 2
    silent.set()


def test_a_kept_connection_that_died_is_replaced_once(serving) -> None:
    """The server closes the connection when the second request is there: the worst moment."""
    served = []

    def answer(handler) -> None:
        served.append(handler.client_address)
        if len(served) == 2:
            handler.close_connection = True
            return
        serving.send(handler, b"{}")

    _, transport = serving(answer)
    transport.call(GET)
    assert transport.call(GET).status == 200
    assert len(served) == 3


def test_a_request_that_changes_something_is_not_sent_twice(serving) -> None:
    def answer(handler) -> None:
        handler.close_connection = True

    server, transport = serving(answer)
    with pytest.raises(Unavailable):
        transport.call(Request("POST", "/api/follow/foo"))
    assert len(server.requests) == 1
    with pytest.raises(Unavailable):
        transport.call(GET)
    assert len(server.requests) == 1 + 2 + len(PAUSES_S)  # at once on a new connection, then with pauses


def test_an_answer_that_is_broken_off(serving) -> None:
    def answer(handler) -> None:
        serving.send(handler, b"half", Content_Length="8")
        handler.close_connection = True

    _, transport = serving(answer)
    with pytest.raises(Unavailable):
        transport.call(GET)
    with transport.open(GET) as body, pytest.raises(Unavailable):
        body.read_into(memoryview(bytearray(8)))


def test_threads_share_a_transport(serving) -> None:
    def answer(handler) -> None:
        serving.send(handler, handler.path.encode())

    _, transport = serving(answer)
    wrong = []

    def ask(name: int) -> None:
        for n in range(20):
            target = f"/{name}/{n}"
            if transport.call(Request("GET", target)).body != target.encode():
                wrong.append(target)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
