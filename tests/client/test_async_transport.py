"""Connections on an event loop that are refused, die, or fall silent."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading

import pytest
import trustme

from caterva2.client.async_transport import AsyncTransport, Closed
from caterva2.client.protocol import Request
from caterva2.config import Token
from caterva2.errors import Caterva2Error, NotFound, Unavailable

GET = Request("GET", "/api/roots")


def asking(serving, answer, timeout_s=5.0):
    server, _ = serving(answer)
    return server, AsyncTransport(server.url, None, timeout_s)


async def test_an_answer_has_status_headers_and_body(serving) -> None:
    server, transport = asking(serving, lambda handler: serving.send(handler, b"hello", X_Some="thing"))
    reply = await transport.call(Request("GET", "/api/x%20y?a=%23&b=%2B", {"Range": "bytes=1-2"}))
    assert (reply.status, reply.headers["x-some"], reply.body) == (200, "thing", b"hello")
    method, target, headers, _ = server.requests[0]
    assert (method, target, headers["Range"]) == ("GET", "/api/x%20y?a=%23&b=%2B", "bytes=1-2")
    assert not {"Authorization", "Accept-Encoding"} & set(headers)
    await transport.close()


async def test_a_url_with_a_path_is_a_prefix(serving) -> None:
    server, _ = serving(lambda handler: serving.send(handler, b"{}"))
    transport = AsyncTransport(f"{server.url}/behind/a proxy", Token("correct-horse"), 5)
    await transport.call(Request("POST", "/api/roots", body=b"body"))
    await transport.close()
    assert server.requests[0][1] == "/behind/a%20proxy/api/roots"
    assert server.requests[0][2]["Authorization"] == "Bearer correct-horse"
    assert server.requests[0][3] == b"body"


async def test_an_error_is_raised_and_the_connection_used_again(serving) -> None:
    body = json.dumps({"type": "urn:caterva2:problem:not-found", "detail": "no x", "path": "foo/x"}).encode()
    ports = []

    def answer(handler) -> None:
        ports.append(handler.client_address)
        serving.send(handler, body, 404)

    _, transport = asking(serving, answer)
    for _ in range(3):
        with pytest.raises(NotFound, match="no x"):
            await transport.call(GET)
    assert len(set(ports)) == 1
    await transport.close()


async def test_a_service_that_is_busy_is_asked_again(serving) -> None:
    def answer(handler) -> None:
        busy = len(server.requests) < 3
        serving.send(handler, b"{}", 503 if busy else 200, **({"Retry_After": "0"} if busy else {}))

    server, transport = asking(serving, answer)
    assert (await transport.call(GET)).status == 200
    assert len(server.requests) == 3
    await transport.close()


async def test_a_connection_that_dies_is_made_again(serving) -> None:
    def answer(handler) -> None:
        if len(server.requests) == 2:
            handler.close_connection = True
            return  # without an answer
        serving.send(handler, b"{}")

    server, transport = asking(serving, answer)
    for _ in range(2):
        assert (await transport.call(GET)).status == 200
    assert len(server.requests) == 3
    with pytest.raises(Unavailable):
        server.requests.clear()
        await transport.call(GET)
        await transport.call(Request("POST", "/api/follow/foo"))  # which may not be done twice
    assert len(server.requests) == 2
    await transport.close()


async def test_who_is_silent_is_given_up(serving) -> None:
    done = threading.Event()
    _, transport = asking(serving, lambda handler: done.wait(20), timeout_s=0.2)
    with pytest.raises(Unavailable, match="does not answer in time"):
        await transport.call(GET)
    done.set()
    await transport.close()


async def test_who_falls_silent_within_an_answer_is_given_up(serving) -> None:
    done = threading.Event()

    def answer(handler) -> None:
        serving.send(handler, b"abc", Content_Length="10")
        handler.wfile.flush()
        done.wait(20)

    _, transport = asking(serving, answer, timeout_s=0.2)
    with pytest.raises(Unavailable, match="does not answer in time"):
        await transport.call(GET)
    done.set()
    await transport.close()


@pytest.mark.parametrize("answer", [b"junk\r\n\r\n", b""])
async def test_what_is_no_http_is_unavailable(answer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(6):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        transport = AsyncTransport(f"http://127.0.0.1:{listening.getsockname()[1]}", None, 2)
        with pytest.raises(Unavailable):
            await transport.call(GET)
        await transport.close()
        listening.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(thread.join)


async def test_redirects_are_not_followed(serving) -> None:
    _, transport = asking(
        serving, lambda handler: serving.send(handler, b"", 302, Location="http://elsewhere/")
    )
    with pytest.raises(Caterva2Error, match="302"):
        await transport.call(GET)
    await transport.close()


async def test_more_than_was_asked_for_is_refused(serving) -> None:
    _, transport = asking(serving, lambda handler: serving.send(handler, b"0123456789"))
    async with transport.open(GET) as body:
        with pytest.raises(Caterva2Error, match="more than was asked for"):
            await body.read(5)
    async with transport.open(GET) as body:
        with pytest.raises(Caterva2Error, match="more than was asked for"):
            await body.read_into(memoryview(bytearray(5)))
    async with transport.open(GET) as body:
        with pytest.raises(Unavailable, match="broke the answer off"):
            await body.read_into(memoryview(bytearray(50)))
    await transport.close()


async def test_a_header_of_several_lines_is_refused(serving) -> None:
    _, transport = asking(serving, lambda handler: serving.send(handler, b"{}"))
    with pytest.raises(Caterva2Error, match="cannot be asked for"):
        await transport.call(Request("GET", "/", {"If-Match": "a\r\nHost: b"}))
    await transport.close()


@pytest.mark.parametrize("begun", [True, False])
async def test_closing_ends_what_is_under_way(serving, begun) -> None:
    asked, done = threading.Event(), threading.Event()

    def answer(handler) -> None:
        if begun:
            serving.send(handler, b"abc", Content_Length="10")
            handler.wfile.flush()
        asked.set()
        done.wait(20)

    server, transport = asking(serving, answer, timeout_s=60)
    call = asyncio.ensure_future(transport.call(GET))
    await asyncio.to_thread(asked.wait, 10)
    await transport.close()
    with pytest.raises(Closed):
        await asyncio.wait_for(call, 20)  # and not after the time-out
    assert len(server.requests) == 1
    done.set()


async def test_tls_checks_who_answers(monkeypatch, tmp_path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def answer(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for trusted in (False, True):
            if trusted:
                authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
                monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            for host in ("localhost", "127.0.0.1"):
                transport = AsyncTransport(f"https://{host}:{port}", None, 5)
                if trusted and host == "localhost":
                    assert (await transport.call(GET)).body == b"{}"
                else:
                    with pytest.raises(Unavailable, match=r"cannot reach the .*certificate"):
                        await transport.call(GET)
                await transport.close()
