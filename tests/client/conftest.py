"""Real services over real files, and small servers that answer as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from caterva2.client import Client, connect
from caterva2.client.transport import Transport
from caterva2.frame.write import write_array, write_frame
from caterva2.testing.cluster import Cluster, RunningCluster, running_cluster

ARRAYS = {
    "ints.b2nd": np.arange(60 * 50, dtype=np.int32).reshape(60, 50),
    "cube.b2nd": np.arange(12 * 10 * 14, dtype=np.float32).reshape(12, 10, 14),
    "scalar.b2nd": np.array(2.5, np.float32),
    "empty.b2nd": np.zeros((0, 5), np.int16),
    "complex.b2nd": np.array([1 + 2j, np.nan], np.complex128),
    "bool.b2nd": np.array([True, False, True]),
    "bytes.b2nd": np.array([b"ab", b"\xff"], "S3"),
    "text.b2nd": np.array(["é", "xyz"], "U4"),
    "records.b2nd": np.array([(1, 2.5, "é"), (3, -1.0, "xy")], [("a", "i4"), ("b", "f8"), ("ç", "U3")]),
    "times.b2nd": np.array(["2020-01-01T00:00:01", "NaT"], "M8[ms]"),
    "spans.b2nd": np.array([5, -7], "m8[s]"),
    "zeros.b2nd": np.zeros((300, 300)),
    "dir1/é #?%&+.b2nd": np.arange(5),
}
FRAME = b"".join(n.to_bytes(4, "little") for n in range(1000))
TEXT = bytes(range(256)) * 3000


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("root")
    (directory / "dir1").mkdir()
    for name, array in ARRAYS.items():
        chunks = (20, 25) if name == "ints.b2nd" else (5, 4, 6) if name == "cube.b2nd" else None
        write_array(directory / name, array, chunks=chunks, attrs={"units": "K"})
    write_frame(directory / "f.b2frame", FRAME, typesize=4)
    (directory / "text é #?%.bin").write_bytes(TEXT)
    (directory / "nothing").write_bytes(b"")
    (directory / "broken.b2nd").write_bytes(b"this is no frame at all, whatever its name says")
    return directory


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory) -> Iterator[RunningCluster]:
    cluster = Cluster(tmp_path_factory.mktemp("state"), {"foo": root})
    with running_cluster(cluster) as running:
        yield running


@pytest.fixture
def client(running: RunningCluster) -> Iterator[Client]:
    with connect(running.url) as client:
        yield client


Answer = Callable[[BaseHTTPRequestHandler], None]


class SmallServer:
    """Answers every request by a function of the test; keeps what was asked."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.requests.append((self.command, self.path, dict(self.headers), body))
                answer(self)

            do_GET = do_POST = answer

            def log_message(self, *args) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    if "Content_Length" not in headers:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def serving() -> Iterator[Callable[..., tuple[SmallServer, Transport]]]:
    """Start a server that answers as told, and a transport to it."""
    with ExitStack() as stack:

        def start(answer: Answer, timeout_s: float = 5.0) -> tuple[SmallServer, Transport]:
            server = SmallServer(answer)
            stack.callback(server.close)
            transport = Transport(server.url, None, timeout_s)
            stack.callback(transport.close)
            return server, transport

        start.send = send
        yield start


@pytest.fixture
def truths() -> dict[str, np.ndarray]:
    return ARRAYS
