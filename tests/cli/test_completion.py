"""Completion, by the candidates that are printed, and as the shells themselves use them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from caterva2.cli import FAMILIES, VERBS
from caterva2.cli.candidates import print_candidates
from caterva2.cli.names import PAGES, names_like, names_near
from caterva2.client.protocol import Request
from caterva2.client.transport import Transport
from caterva2.testing.cluster import Cluster, running_cluster

PATIENCE_S = 60.0
"""Most that a shell may take to show something; a machine may be busy."""


@pytest.fixture
def complete(cat2, capsys):
    """Return what may stand in place of the last of some words."""

    def complete(*words: str, code: int = 0) -> list[str]:
        assert print_candidates(words, PATIENCE_S) == code
        out, err = capsys.readouterr()
        assert err == ""
        return [line.partition("\t")[0] for line in out.splitlines() if line]

    return complete


def test_verbs(complete) -> None:
    words = {name for name in VERBS if " " not in name} | set(FAMILIES)
    assert set(complete("")) == words | {"--help", "--version"}
    assert complete("sh") == ["show"]
    assert complete("cache", "") == ["ls", "pin", "unpin", "drop", "fsck"]
    assert complete("help", "cache", "f") == ["fsck"]
    assert complete("nonsense", "") == []


def test_options_and_what_they_take(complete) -> None:
    assert {"--json", "--explain", "--subscriber"} <= set(complete("show", "--"))
    assert complete("show", "foo/x", "--ex") == ["--explain"]
    assert complete("bus", "check", "--role", "") == ["broker", "publisher", "subscriber"]
    assert complete("bus", "check", "--role=p") == ["--role=publisher"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]
    assert complete("show", "--token-file", "", code=1) == []
    assert complete("publisher", "foo=", code=1) == []
    assert complete("roots", "--subscriber", "") == []


def test_names_of_datasets_one_level_at_a_time(complete) -> None:
    assert complete("show", "") == ["foo/"]
    assert complete("show", "fo") == ["foo/"]
    assert complete("show", "bar") == []
    level = complete("show", "foo/")
    assert {"foo/dir1/", "foo/cube.b2nd", "foo/odd [1] é.b2nd"} <= set(level)
    assert not any(name.startswith("foo/dir1/d") for name in level)
    assert complete("show", "foo/dir1/") == ["foo/dir1/ds-2d.b2nd", "foo/dir1/ds-3d.b2nd"]
    assert complete("show", "foo/dir1/ds-2") == ["foo/dir1/ds-2d.b2nd"]
    assert complete("show", "foo/dir1/ds-2d.b2nd") == ["foo/dir1/ds-2d.b2nd"]
    assert complete("show", "foo/cube.b2nd", "") == []
    assert complete("follow", "foo/cube.b2nd", "foo/dir") == ["foo/dir1/", "foo/dir2/"]
    assert complete("sources", "") == ["foo"]
    assert complete("download", "foo/cube.b2nd", "", code=1) == []


def test_silence_where_nobody_answers(complete, monkeypatch) -> None:
    assert complete("show", "--subscriber", "http://127.0.0.1:1", "") == []
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", "nonsense")
    assert complete("show", "") == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cat2 sho", ["show"]),
        ("cat2 show 'foo/odd [", ["foo/odd [1] é.b2nd"]),
        ('cat2 show "foo/odd ', ["foo/odd [1] é.b2nd"]),
        (r"cat2 show foo/odd\ ", ["foo/odd [1] é.b2nd"]),
        ("cat2 bus check --role=pub", ["publisher"]),
        ("cat2 cache drop  foo/dir", ["foo/dir1/", "foo/dir2/"]),
    ],
)
def test_a_line_is_cut_as_bash_cuts_it(complete, line, found) -> None:
    assert complete("--line", line) == found


class Counting(Transport):
    """Counts the requests."""

    asked = 0

    def call(self, request: Request, **options):
        self.asked += 1
        return super().call(request, **options)


def test_few_requests_however_much_there_is(tmp_path) -> None:
    root = tmp_path / "root"
    for directory in ("many", "more"):
        (root / directory / "deep").mkdir(parents=True)
        for n in range(1500):
            (root / directory / "deep" / f"{n:04}.txt").touch()
    (root / "zulu.txt").touch()
    with running_cluster(Cluster(tmp_path / "state", {"foo": root})) as running:
        transport = Counting(running.url, None, PATIENCE_S)
        assert names_like(transport, "foo/") == ["foo/many/", "foo/more/", "foo/zulu.txt"]
        assert transport.asked <= 3
        assert names_like(transport, "foo/mo") == ["foo/more/"]
        assert names_like(transport, "foo/more/deep/149") == [f"foo/more/deep/149{n}.txt" for n in range(10)]
        assert len(names_like(transport, "foo/many/deep/")) == 200, "more is of no use"
        transport.asked = 0
        assert names_near(transport, "foo/many/deap/0001.txt")[0] == "foo/many/deep/0001.txt"
        assert transport.asked <= PAGES + 1
        transport.close()


# -- real shells -----------------------------------------------------------------------------------


@pytest.fixture
def environment(running, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which ``cat2`` is ours."""
    directory = tmp_path / "bin"
    directory.mkdir()
    command = directory / "cat2"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m caterva2 "$@"\n')
    command.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{directory}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "CATERVA2_SUBSCRIBER": running.url,
        "CATERVA2_CONFIG": str(tmp_path / "none.toml"),
    }


def needed(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"there is no {shell} on this machine")
    return path


@contextmanager
def typing_at(arguments: list[str], environment: dict[str, str]) -> Iterator[tuple]:
    """Run a shell on a terminal; give what types, and what waits for a text to be shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown = ""

    def type_in(keys: str) -> None:
        os.write(ours, keys.encode())

    def wait_for(text: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + PATIENCE_S
        while text not in shown:
            readable, _, _ = select.select([ours], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"{text!r} did not come; there was {shown!r}"
            shown += os.read(ours, 4096).decode(errors="replace").replace("\r\n", "\n")
        shown = shown.partition(text)[2]

    try:
        yield type_in, wait_for
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("shell", "arguments", "load"),
    [
        ("bash", ["--norc", "--noprofile", "-i"], 'eval "$(cat2 completion bash)"'),
        ("zsh", ["-f", "-i"], 'autoload -U compinit; compinit -u; eval "$(cat2 completion zsh)"'),
        (
            "zsh",
            ["-f", "-i"],
            "cd; cat2 completion zsh > _cat2; fpath=($PWD $fpath); autoload -U compinit; compinit -u",
        ),
    ],
)
def test_a_tab_at_a_terminal(environment, shell, arguments, load) -> None:
    with typing_at([needed(shell), *arguments], environment) as (type_in, wait_for):
        type_in(f"{load}; echo loa''ded\n")
        wait_for("loaded\n")
        type_in("cat2 completi\tzs\t; echo don''e\n")  # prints a script
        wait_for("compdef")
        wait_for("done\n")
        type_in("echo cat2; cat2 url foo/dir1/ds-2\t; echo don''e\n")
        wait_for("/data/foo/dir1/ds-2d.b2nd\n")
        wait_for("done\n")
        type_in("cat2 url foo/od\t\n")  # a name that has to be quoted
        wait_for("/data/foo/odd%20%5B1%5D%20%C3%A9.b2nd\n")


def test_fish(environment, tmp_path) -> None:
    fish = needed("fish")

    def completed(line: str) -> list[str]:
        script = f"cat2 completion fish | source; complete -C {line!r}"
        done = subprocess.run(
            [fish, "--no-config", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return [row.partition("\t")[0] for row in done.stdout.splitlines()]

    assert completed("cat2 sho") == ["show"]
    assert completed("cat2 show foo/dir1/ds-2") == ["foo/dir1/ds-2d.b2nd"]
    assert completed("cat2 show foo/odd\\ ") == ["foo/odd [1] é.b2nd"]
    (tmp_path / "published").mkdir()
    assert completed(f"cat2 serve foo={tmp_path}/publi") == [f"foo={tmp_path}/published/"]
