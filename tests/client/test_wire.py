"""HTTP on the wire: every way to frame an answer, and every way to break one."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trustme

from caterva2.client.underway import UnderWay
from caterva2.client.wire import MAX_HEAD_BYTES, Broken, NotConnected, Wire

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Peer:
    """Accepts connections, and sends on each one answer after the other, whatever is asked."""

    def __init__(self, answers: list[bytes], tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._answers = iter(answers)
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self._open.append(sock)
            while sock.recv(65536):
                answer = next(self._answers)
                for start in range(0, len(answer), 50_000):
                    sock.sendall(answer[start : start + 50_000])
                if b"\r\nConnection: close\r\n" in answer or answer.startswith(b"HTTP/1.0"):
                    break
        except (OSError, StopIteration):
            pass
        finally:
            sock.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._open:
            sock.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., tuple[Peer, Wire]]]:
    with ExitStack() as stack:

        def start(*answers: bytes) -> tuple[Peer, Wire]:
            peer = Peer(list(answers))
            stack.callback(peer.close)
            wire = Wire(f"http://127.0.0.1:{peer.port}")
            stack.callback(wire.close)
            return peer, wire

        yield start


def ask(wire: Wire) -> tuple[int, bytes]:
    answer = wire.send(ASK, 5, 5)
    try:
        return answer.status, answer.read()
    finally:
        wire.release(answer)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        CHUNKED,
        b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
        OK.replace(b"Content-Length", b"CONTENT-length").replace(b": 5", b":5  "),
    ],
)
def test_an_answer_is_read_and_the_connection_kept(peer, answer) -> None:
    server, wire = peer(*[answer] * 3)
    assert [ask(wire) for _ in range(3)] == [(200, b"hello")] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        OK + b"HTTP/1.1 200 OK\r\n",
        OK + b"more",
    ],
)
def test_a_connection_that_cannot_be_used_again_is_not(peer, answer) -> None:
    server, wire = peer(answer, answer)
    assert [ask(wire) for _ in range(2)] == [(200, b"hello")] * 2
    assert server.connections == 2


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_never_has_a_body(peer, status) -> None:
    server, wire = peer(*[b"HTTP/1.1 %d X\r\nETag: a\r\n\r\n" % status] * 2)
    assert [ask(wire) for _ in range(2)] == [(status, b"")] * 2
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2 * MAX_HEAD_BYTES,
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nX: y",
    ],
)
def test_what_is_no_answer_or_breaks_off_is_an_error(peer, answer) -> None:
    _, wire = peer(answer)
    with pytest.raises(Broken):
        ask(wire)


def test_headers_are_found_in_any_case_and_joined(peer) -> None:
    _, wire = peer(OK.replace(b"\r\n\r\n", b"\r\nVary: a\r\nVARY: b\r\n\r\n"))
    answer = wire.send(ASK, 5, 5)
    assert (answer.headers["vArY"], answer.headers.get("etag"), len(answer.headers)) == ("a, b", None, 2)
    assert dict(answer.headers) == {"content-length": "5", "vary": "a, b"}
    wire.release(answer)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_large_body_is_received_in_place(peer, chunked) -> None:
    body = bytes(range(256)) * 4000
    head = b"HTTP/1.1 200 OK\r\n"
    if chunked:
        message = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        message = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    server, wire = peer(message, message)
    for _ in range(2):
        answer = wire.send(ASK, 5, 5)
        target = bytearray(len(body) - 7)
        assert answer.read(3) == body[:3]
        assert answer.read_into(memoryview(target)[3:]) == len(body) - 10
        assert target[3:] == body[3:-7]
        assert answer.read(100) == body[-7:]
        assert (answer.read(), answer.some(5), answer.done) == (b"", b"", True)
        wire.release(answer)
    assert server.connections == 1


def test_what_came_before_it_broke_is_had_first(peer) -> None:
    _, wire = peer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50\r\n\r\nhello")
    answer = wire.send(ASK, 5, 5)
    assert answer.read(20) == b"hello"
    with pytest.raises(Broken):
        answer.read(20)
    wire.release(answer)


def test_a_connection_that_was_closed_meanwhile_is_not_used(peer) -> None:
    server, wire = peer(OK, OK)
    assert ask(wire) == (200, b"hello")
    for sock in server._open:
        sock.shutdown(socket.SHUT_RDWR)
    assert ask(wire) == (200, b"hello")
    assert server.connections == 2


def test_connections_are_not_shared_with_a_child(peer) -> None:
    server, wire = peer(OK, OK, OK)
    assert ask(wire) == (200, b"hello")
    wire._process = 0  # as it is for a process that was forked
    assert [ask(wire), ask(wire)] == [(200, b"hello")] * 2
    assert server.connections == 2


def test_a_body_that_another_thread_stops(peer) -> None:
    _, wire = peer(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
    under_way = UnderWay()
    answer = wire.send(ASK, 5, 20, under_way=under_way)
    assert answer.some(100) == b"hello"
    threading.Timer(0.05, under_way.stop).start()
    with pytest.raises(Broken):
        answer.some(100)
    wire.release(answer)
    under_way.stop()  # which is too late, and no error
    with pytest.raises(Broken):
        wire.send(ASK, 5, 20, under_way=under_way)


def test_silence_is_a_time_out(peer) -> None:
    _, wire = peer(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
    answer = wire.send(ASK, 5, 0.1)
    with pytest.raises(TimeoutError):
        answer.read()
    wire.release(answer)


def test_tls_checks_who_answers(monkeypatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    server = Peer([OK] * 4, context)
    try:
        with pytest.raises(NotConnected, match="certificate verify failed"):
            Wire(f"https://localhost:{server.port}").send(ASK, 5, 5)
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
        with pytest.raises(NotConnected, match="certificate is not valid for"):
            Wire(f"https://127.0.0.1:{server.port}").send(ASK, 5, 5)
        wire = Wire(f"https://localhost:{server.port}")
        connections = server.connections
        assert [ask(wire), ask(wire)] == [(200, b"hello")] * 2
        assert server.connections == connections + 1
        wire.close()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://[::1]:8002/x", "[::1]:8002"),
        ("https://example.org", "example.org"),
        ("http://münchen.example:80", "xn--mnchen-3ya.example:80"),
    ],
)
def test_what_a_service_is_called(url, host) -> None:
    assert Wire(url).host == host
