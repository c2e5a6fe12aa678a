"""Many readers of the same cold data: it is fetched once, and one who leaves disturbs nobody."""

from __future__ import annotations

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from caterva2.testing.waiting import wait_until

READERS = 50
PLANE = "7"
MISSES = "caterva2_subscriber_cache_misses"


@pytest.fixture
def sent_for(ask):
    """Return what a publisher sends while something is done: requests and bytes, of data."""

    def counted(publisher) -> np.ndarray:
        url, route = publisher.url("publisher"), '{route="/data/'
        requests = ask.metric(url, 'caterva2_publisher_requests_total{method="GET",route="/data/')
        return np.array([requests, ask.metric(url, f"caterva2_publisher_sent_bytes_total{route}")])

    def sent_for(publisher, do) -> tuple[int, int]:
        before = counted(publisher)
        do()
        requests, nbytes = (counted(publisher) - before).tolist()
        return requests, nbytes

    return sent_for


def test_fifty_readers_of_a_cold_plane_fetch_it_once(start, restart, ask, arrays, sent_for) -> None:
    publisher, crowded = start()
    lonely = restart("lonely")
    together = threading.Barrier(READERS)

    def read(name: str) -> None:
        together.wait()
        np.testing.assert_array_equal(
            ask.part(crowded.url("subscriber"), name, PLANE), arrays[name][int(PLANE)]
        )

    def all_read(name: str) -> None:
        with ThreadPoolExecutor(READERS) as threads:
            list(threads.map(read, [name] * READERS))

    for name in arrays:
        one = sent_for(publisher, lambda: ask.part(lonely.url("subscriber"), name, PLANE))  # noqa: B023
        fifty = sent_for(publisher, lambda: all_read(name))  # noqa: B023
        print(f"{name}: requests and bytes for one reader {one}, for {READERS} {fifty}")
        assert one[0] > 0 and one[1] > 0
        assert fifty == one


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_the_reader_who_began_a_fetch_can_leave_it_to_the_others(start, ask, arrays, sent_for) -> None:
    publisher, subscriber = start()
    url = subscriber.url("subscriber")
    name = next(iter(arrays))
    ask.part(url, name, "40")  # the manifest is here
    missed = ask.metric(url, MISSES)
    target = f"/api/fetch/foo/{name}?slice_={PLANE}"

    os.kill(publisher.popen.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(READERS) as threads:
            with socket.create_connection(_address(url)) as leaving:
                leaving.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                wait_until(lambda: ask.metric(url, MISSES) > missed)
                extents = ask.metric(url, MISSES) - missed
                staying = [threads.submit(ask.part, url, name, PLANE) for _ in range(READERS)]
                wait_until(lambda: ask.metric(url, MISSES) == missed + extents * (1 + READERS))
            os.kill(publisher.popen.pid, signal.SIGCONT)
            for answer in staying:
                np.testing.assert_array_equal(answer.result(), arrays[name][int(PLANE)])
    finally:
        os.kill(publisher.popen.pid, signal.SIGCONT)
    assert sent_for(publisher, lambda: ask.part(url, name, PLANE)) == (0, 0)


def test_downloads_that_are_broken_off_disturb_nobody(start, ask, root) -> None:
    _, subscriber = start()
    url = subscriber.url("subscriber")
    expected = (root / "plain.bin").read_bytes()

    def leave_midway(nbytes: int) -> None:
        with socket.create_connection(_address(url)) as connection:
            connection.sendall(b"GET /api/download/foo/plain.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            while nbytes > 0 and (got := connection.recv(min(nbytes, 65536))):
                nbytes -= len(got)

    with ThreadPoolExecutor(20) as threads:
        leaving = [threads.submit(leave_midway, 1 + 100_000 * number) for number in range(10)]
        staying = [threads.submit(ask.stored, url, "plain.bin") for _ in range(10)]
        assert all(answer.result() == expected for answer in staying)
        for left in leaving:
            left.result()
    assert ask.json(f"{url}/api/info/foo/plain.bin")["complete"]


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)
