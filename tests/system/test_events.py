"""Events on the command line, through a subscriber that is killed and started again."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading

import pytest

from caterva2.frame.write import write_array


class Listener:
    """``cat2 events --json`` in a process; its lines are read as they come."""

    def __init__(self, site, pattern: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "caterva2", "events", pattern, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in site.environment.items() if name != "PYTHONUNBUFFERED"},
        )
        self.lines: dict[str, queue.Queue[str]] = {"stdout": queue.Queue(), "stderr": queue.Queue()}
        self._threads = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self.lines
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str) -> None:
        for line in getattr(self.popen, name):
            self.lines[name].put(line)

    def wait_for_event(self, kind: str, path: str) -> None:
        while True:
            event = json.loads(self.lines["stdout"].get(timeout=30))
            if (event["kind"], event["path"]) == (kind, path):
                return

    def wait_for_word(self, text: str) -> None:
        while text not in self.lines["stderr"].get(timeout=30):
            pass

    def close(self) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
        code = self.popen.wait(timeout=15)
        for thread in self._threads:
            thread.join(timeout=5)
        self.popen.stdout.close()
        self.popen.stderr.close()
        return code


@pytest.fixture
def listener(site):
    (site.directory / "data").mkdir()
    *_, site.subscriber = site.start_three(site.directory / "data")
    listener = Listener(site, "foo/*")
    listener.wait_for_word("listening")
    yield listener
    listener.close()


def test_a_listener_survives_its_subscriber(site, listener) -> None:
    file = site.directory / "data" / "x.b2nd"
    write_array(file, range(10))
    listener.wait_for_event("created", "foo/x.b2nd")

    site.subscriber.kill()
    listener.wait_for_word("trying to connect again")
    listen = site.environment["CATERVA2_SUBSCRIBER"].removeprefix("http://")
    again = site.start("subscriber", "--listen", listen, "--state", str(site.directory / "subscriber"))
    again.url("subscriber")
    listener.wait_for_event("missed", "foo/*")
    listener.wait_for_word("may have been missed")

    file.unlink()
    listener.wait_for_event("deleted", "foo/x.b2nd")
    assert listener.close() == 130
