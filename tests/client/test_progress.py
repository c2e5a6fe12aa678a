"""Bars: where somebody sees them, for what takes long, and of the right length."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import caterva2
import caterva2.client.array as array_module
import caterva2.client.progress as module
from caterva2.client.progress import Meter

SHOW = """
import sys
from caterva2.client import progress
progress.DELAY_S = progress.REDRAW_S = 0.0
with progress.Meter("foo/<b>x.b2nd", 4_000_000) as meter:
    meter.add(1_000_000)
    meter.add(1_000_000)
    {}
print("done")
"""


class Drawn:
    """A display that keeps what was drawn."""

    def __init__(self) -> None:
        self.draws, self.closed = [], 0

    def draw(self, done, total) -> None:
        self.draws.append((done, total, threading.get_ident()))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def drawn(monkeypatch) -> Drawn:
    """Everything takes long here, and there is somewhere to draw."""
    bar = Drawn()
    monkeypatch.setattr(module, "DELAY_S", 0.0)
    monkeypatch.setattr(module, "REDRAW_S", 0.0)
    monkeypatch.setattr(module, "_bar", lambda what: bar)
    return bar


@pytest.fixture
def watched(running):
    with caterva2.connect(running.url, progress=True) as client:
        yield client


@pytest.mark.parametrize("part_bytes", [1000, 10**6])
def test_a_read_moves_a_bar_to_its_end(watched, truths, drawn, monkeypatch, part_bytes) -> None:
    monkeypatch.setattr(array_module, "PART_BYTES", part_bytes)
    array, truth = watched["foo/ints.b2nd"], truths["ints.b2nd"]
    for _ in range(2):  # as .npy, then as blocks
        drawn.draws.clear()
        assert np.array_equal(array[...], truth)
        done, totals, threads = zip(*drawn.draws, strict=True)
        assert list(done) == sorted(done)
        assert truth.nbytes * 0.9 < done[-1] <= truth.nbytes
        assert set(totals) == {truth.nbytes}
        assert set(threads) == {threading.get_ident()}
    assert drawn.closed == 2


def test_files_and_frames_move_one_too(watched, drawn) -> None:
    for name, size in {"text é #?%.bin": 768_000, "f.b2frame": 4000}.items():
        drawn.draws.clear()
        watched[f"foo/{name}"][:]
        assert drawn.draws[-1][:2] == (size, size)


def test_a_download_moves_one_or_calls_who_asked(watched, drawn, tmp_path) -> None:
    watched.download("foo/text é #?%.bin", tmp_path)
    assert drawn.draws[-1][:2] == (768_000, 768_000)
    drawn.draws.clear()
    said = []
    watched.download("foo/text é #?%.bin", str(tmp_path), progress=lambda *numbers: said.append(numbers))
    assert said[-1] == (768_000, 768_000)
    assert drawn.draws == []


def test_an_answer_that_breaks_off_does_not_count(serving, client, drawn) -> None:
    info = client.info("foo/nothing") | {"size": 10}

    def answer(handler) -> None:
        handler.close_connection = len(server.requests) < 3
        data = b"0123456789" if len(server.requests) == 3 else b"01"
        serving.send(handler, data, 206, Content_Length="10")

    server, transport = serving(answer)
    transport._bar = threading.Lock()
    file = caterva2.File(transport, info)
    assert file[:] == b"0123456789"
    assert drawn.draws[-1][0] == 10
    assert max(done for done, *_ in drawn.draws) == 10


def test_there_is_one_bar_at_a_time(watched) -> None:
    transport = watched._transport
    with transport.meter("one") as one, transport.meter("two") as two:
        assert (one is None, two is None) == (False, True)
    with transport.meter("three") as three:
        assert three is not None


def test_nothing_is_drawn_for_who_did_not_ask(client, drawn) -> None:
    client["foo/ints.b2nd"][...]
    assert drawn.draws == []


def test_what_is_quick_shows_nothing(watched, drawn, monkeypatch) -> None:
    monkeypatch.setattr(module, "DELAY_S", 60.0)
    watched["foo/ints.b2nd"][...]
    assert (drawn.draws, drawn.closed) == ([], 0)


def test_nothing_goes_into_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format("assert 'rich' not in sys.modules")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_bar() -> None:
    here, there = os.openpty()
    with os.fdopen(here, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-c", SHOW.format("meter._bar._progress.refresh()")],
            stdout=subprocess.PIPE,
            stderr=there,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
            text=True,
        )
        os.close(there)
        assert process.communicate(timeout=60)[0] == "done\n"
        shown = b""
        try:
            while piece := terminal.read(65536):
                shown += piece
        except OSError:  # the other side is closed
            pass
    assert b"2.0/4.0 MB" in shown
    assert b"foo/<b>x.b2nd" in shown


def test_a_notebook_shows_a_bar() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    code = SHOW.format("import time; time.sleep(0)")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    shown = []
    runner = nbclient.NotebookClient(book, timeout=60)
    handle = runner.process_message

    def keeping(message, *args):
        if message["msg_type"] in ("display_data", "update_display_data"):
            shown.append(message["content"]["data"])
        return handle(message, *args)

    runner.process_message = keeping
    runner.execute()
    bars = [data["text/html"] for data in shown if data["text/html"]]
    assert (
        bars[-1] == '<progress value="2000000" max="4000000"></progress> foo/&lt;b&gt;x.b2nd: 2.0 of 4.0 MB'
    )
    assert shown[-1] == {"text/html": "", "text/plain": ""}  # it goes away


def test_a_meter_counts_from_several_threads(drawn) -> None:
    with Meter("what", 8000) as meter:
        threads = [threading.Thread(target=lambda: [meter.add(1) for _ in range(1000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert drawn.draws == []  # none of them draws
        meter.look()
    assert drawn.draws == [(8000, 8000, threading.get_ident())]
