"""Large reads that fail or are interrupted: nothing goes on, and nobody waits."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

import caterva2.client.array as module
from caterva2.client import Array
from caterva2.client.underway import UnderWay, run_together
from caterva2.errors import Caterva2Error, Unavailable
from caterva2.testing.waiting import wait_until


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("caterva2-read")]


class Endless:
    """Answers each request with the beginning of an array, or fails some of them; never ends one."""

    def __init__(self, send, *, fail: bool = False) -> None:
        self.send, self.fail = send, fail
        self.begun = threading.Semaphore(0)
        self.broken = 0
        self.lock = threading.Lock()
        self.number = 0
        self.end = threading.Event()

    def __call__(self, handler) -> None:
        with self.lock:
            self.number += 1
            fails = self.fail and self.number == 3
        if fails:
            for _ in range(2):
                self.begun.acquire(timeout=10)
            self.send(handler, b"", 400)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        self.begun.release()
        try:
            while not self.end.wait(0.01):
                handler.wfile.write(b"x")
        except OSError:
            with self.lock:
                self.broken += 1
        handler.close_connection = True


@pytest.fixture
def endless(serving, client):
    servers = []

    def start(**options) -> tuple[Endless, Array]:
        answer = Endless(serving.send, **options)
        servers.append(answer)
        _, transport = serving(answer, timeout_s=60)
        return answer, Array(transport, client.info("foo/ints.b2nd"))

    yield start
    for answer in servers:
        answer.end.set()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals as POSIX has them")
def test_ctrl_c_ends_a_large_read_at_once(endless, monkeypatch) -> None:
    answer, array = endless()
    monkeypatch.setattr(module, "PART_BYTES", 400)
    monkeypatch.setattr("caterva2.client.npy.read_into", lambda body, target: body.read(1_000_000))

    def interrupt() -> None:
        for _ in range(module.PARALLEL):
            assert answer.begun.acquire(timeout=10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    user = threading.Thread(target=interrupt)
    user.start()
    with pytest.raises(KeyboardInterrupt):
        array[:]
    user.join()
    wait_until(lambda: answer.broken == module.PARALLEL)
    wait_until(lambda: not reading_threads())
    assert answer.number == module.PARALLEL  # none of the others began, and none was asked for again


def test_a_part_that_fails_ends_the_others(endless, monkeypatch) -> None:
    answer, array = endless(fail=True)
    monkeypatch.setattr(module, "PART_BYTES", 400)
    monkeypatch.setattr("caterva2.client.npy.read_into", lambda body, target: body.read(1_000_000))
    with pytest.raises(Caterva2Error, match="400"):
        array[:]
    wait_until(lambda: answer.broken >= 2)
    wait_until(lambda: not reading_threads())
    assert answer.number <= 4


def test_what_waits_for_the_head_of_an_answer_ends_as_well(serving) -> None:
    silent, asked = threading.Event(), threading.Event()
    server, transport = serving(lambda handler: (asked.set(), silent.wait(30)), timeout_s=60)
    under_way, failed = UnderWay(), []

    def ask() -> None:
        from caterva2.client.protocol import ask_roots

        try:
            with transport.open(ask_roots(), under_way=under_way):
                pass
        except Unavailable as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(10)
    under_way.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert len(failed) == len(server.requests) == 1
    silent.set()


def test_all_parts_are_read_and_who_waits_looks_around() -> None:
    read, looks, lock = [], [], threading.Lock()

    def one(part: int, under_way: UnderWay) -> None:
        with lock:
            read.append(part)

    run_together(one, range(50), 3, look=lambda: looks.append(1))
    assert sorted(read) == list(range(50))
    assert looks


def test_the_error_of_a_part_is_raised() -> None:
    def one(part: int, under_way: UnderWay) -> None:
        if part == 2:
            raise ValueError("part 2")
        under_way.stopped.wait(0 if part < 2 else 30)

    began = time.monotonic()
    with pytest.raises(ValueError, match="part 2"):
        run_together(one, range(5), 3)
    assert time.monotonic() - began < 25


def test_whoever_has_enough_chunks_leaves_none_on_its_way(client) -> None:
    chunks = client["foo/ints.b2nd"].read_chunks()
    where, found = next(chunks)
    assert where == (slice(0, 20), slice(0, 25))
    assert np.array_equal(found[0, :3], [0, 1, 2])
    chunks.close()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("caterva2-chunks")])
