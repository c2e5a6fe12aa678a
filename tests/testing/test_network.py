import socket
import socketserver
import threading
import time

import pytest

from caterva2.testing.network import Network
from caterva2.testing.waiting import wait_until


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


@pytest.fixture
def echo():
    """The port of a server that sends back what it gets."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def network():
    with Network() as network:
        yield network


def connect(link):
    connection = socket.create_connection(("127.0.0.1", link.port), timeout=10)
    connection.settimeout(10)
    return connection


def test_relays_and_counts(network, echo):
    link = network.link(echo)
    data = b"0123456789" * 100_000
    with connect(link) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert connection.makefile("rb").read(len(data)) == data
        sender.join()
    assert (link.sent_bytes, link.received_bytes) == (len(data), len(data))


def test_cut_ends_connections_and_new_ones(network, echo):
    link = network.link(echo)
    with connect(link) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        link.set_state("cut")
        assert connection.recv(1) == b""
    with connect(link) as connection:
        assert connection.recv(1) == b""
    link.set_state("open")
    with connect(link) as connection:
        connection.sendall(b"b")
        assert connection.recv(1) == b"b"


def test_what_hangs_comes_through_later(network, echo):
    link = network.link(echo)
    with connect(link) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        link.set_state("hung")
        connection.sendall(b"b")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        link.set_state("open")
        connection.settimeout(10)
        assert connection.recv(1) == b"b"


def test_a_target_that_is_gone_ends_the_connection(network, echo):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        gone = probe.getsockname()[1]
    link = network.link(gone)
    with connect(link) as connection:
        assert connection.recv(1) == b""
    link.target = echo
    with connect(link) as connection:
        connection.sendall(b"c")
        assert connection.recv(1) == b"c"


def test_what_comes_can_be_rewritten(network, echo):
    link = network.link(echo, lambda piece: piece.replace(b"1111", b"2222"))
    with connect(link) as connection:
        connection.sendall(b"at 1111")
        wait_until(lambda: link.received_bytes == 7)
        assert connection.recv(7) == b"at 2222"


RATE = 4_000_000


def send_and_receive(link, nbytes):
    """Send bytes to an echo and read them again; returns how long that took, in seconds."""
    with connect(link) as connection:
        began = time.perf_counter()
        sender = threading.Thread(target=connection.sendall, args=(bytes(nbytes),))
        sender.start()
        assert len(connection.makefile("rb").read(nbytes)) == nbytes
        sender.join()
        return time.perf_counter() - began


def test_a_round_trip_takes_twice_the_delay(network, echo):
    link = network.link(echo, delay_s=0.05)
    times = []
    with connect(link) as connection:
        for _ in range(6):
            began = time.perf_counter()
            connection.sendall(b"a")
            assert connection.recv(1) == b"a"
            times.append(time.perf_counter() - began)
    assert times[0] >= 0.2  # and as much for the connection
    assert 0.1 <= min(times[1:]) < 0.11


def test_a_delay_leaves_as_much_through(network, echo):
    link = network.link(echo, delay_s=0.05)
    assert send_and_receive(link, 20_000_000) < 5  # one piece for each round trip would take a minute


def test_no_more_goes_through_than_the_rate(network, echo):
    link = network.link(echo, bytes_per_s=RATE)
    took_s = [send_and_receive(link, RATE // 2) for _ in range(3)]
    assert 0.45 < min(took_s) < 0.55


def test_connections_share_the_rate_alike(network, echo):
    link = network.link(echo, bytes_per_s=RATE)
    took_s = []

    def one():
        took_s.append(send_and_receive(link, RATE // 4))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(took_s) > 0.8
    assert 0.9 < max(took_s) < 2


def test_a_link_with_a_delay_can_be_cut(network, echo):
    link = network.link(echo, delay_s=0.05, bytes_per_s=RATE)
    with connect(link) as connection:
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        link.set_state("cut")
        assert connection.recv(1) == b""
