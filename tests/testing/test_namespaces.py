import socket
import subprocess
import threading

import pytest

from caterva2.testing.namespaces import Namespaces, why_not

SIZE = 3_000_000


@pytest.fixture(scope="module", autouse=True)
def _possible():
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture
def three():
    """Hosts one, two and three, and the cables between them."""
    with Namespaces() as namespaces:
        hosts = [namespaces.host(name) for name in ("one", "two", "three")]
        yield hosts, [namespaces.connect(*hosts[:2]), namespaces.connect(*hosts[1:])]


def test_hosts_reach_their_neighbours_and_cables_count(three):
    (one, two, three), (cable, _) = three
    with two.do(lambda: socket.create_server((cable.addresses["two"], 0))) as server:

        def send():
            with server.accept()[0] as connection:
                connection.sendall(bytes(SIZE))

        def receive():
            with socket.create_connection(server.getsockname(), 10) as connection:
                return len(connection.makefile("rb").read())

        sender = threading.Thread(target=send)
        sender.start()
        assert one.do(receive) == SIZE
        sender.join()
        assert SIZE <= cable.received_bytes(one) < 1.1 * SIZE
        assert cable.received_bytes(two) < 0.1 * SIZE
        with pytest.raises(OSError, match="unreachable"):
            three.do(receive)
    assert not three.reaches(cable.addresses["one"])


def test_a_cable_that_is_cut_leads_nowhere_until_it_is_mended(three):
    (one, _, _), (cable, _) = three
    assert one.reaches(cable.addresses["two"])
    cable.set_up(False)
    assert not one.reaches(cable.addresses["two"])
    cable.set_up(True)
    assert one.reaches(cable.addresses["two"])


def test_nothing_is_left_after_a_failure():
    with pytest.raises(ZeroDivisionError), Namespaces() as namespaces:
        host = namespaces.host("one")
        host.do(lambda: 1 / 0)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert host.namespace not in listed.stdout
