"""``--json`` everywhere: of every verb, and of every error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from caterva2.cli import VERBS, main
from caterva2.cli.app import build_app

SERVICES = ("serve", "broker", "publisher", "subscriber")
FOR_SHELLS = ("completion",)  # what it prints is for a shell

READS = {
    "roots": [[]],
    "list": [[], ["foo"], ["foo/dir1"]],
    "tree": [[], ["foo"], ["foo/dir1"]],
    "info": [[], ["foo/cube.b2nd"], ["foo/README.md"], ["foo/ds-hello.b2frame"]],
    "show": [["foo/cube.b2nd[0, 0]"], ["foo/README.md"], ["foo/odd [1] é.b2nd"]],
    "follow": [["foo/ds-1d.b2nd"]],
    "unfollow": [["foo/ds-1d.b2nd"]],
    "download": [["foo/cube.b2nd"]],
    "url": [["foo/cube.b2nd"], ["foo/cube.b2nd", "--version"]],
    "sources": [[], ["foo"]],
    "events": [["--for-s", "0.1"]],
    "cache ls": [[], ["foo"]],
    "cache pin": [["foo/cube.b2nd"]],
    "cache unpin": [["foo/cube.b2nd"]],
    "cache drop": [["foo/cube.b2nd"]],
    "cache fsck": [[], ["foo"]],
    "bus check": [["--permissions"], ["--permissions", "--role", "publisher", "--root", "foo"]],
    "doctor": [[]],
    "config": [[], ["client"]],
}
ELSEWHERE = {"demo"}  # tests/system runs it


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in FOR_SHELLS])
def test_every_verb_takes_it(verb) -> None:
    app = build_app()
    for word in verb.split():
        app = app[word]
    names = [name for argument in app.assemble_argument_collection() for name in argument.names]
    assert "--json" in names


def test_every_verb_is_tried_out() -> None:
    assert set(READS) | set(SERVICES) | set(FOR_SHELLS) | ELSEWHERE == set(VERBS)


@pytest.mark.parametrize(
    ("verb", "arguments"), [(verb, some) for verb, all_ in READS.items() for some in all_]
)
def test_stdout_is_json_and_nothing_else(cat2, capsys, verb, arguments) -> None:
    if verb == "events":
        assert main(["events", *arguments, "--json"]) == 0
        assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return
    cat2(*verb.split(), *arguments, "--json")


@pytest.mark.parametrize(
    ("arguments", "error", "code", "hint"),
    [
        (["info", "foo/nothing"], "not-found", 3, "cat2 list"),
        (["info", "foo/../x"], "invalid-path", 2, "root/dir/name"),
        (["show", "foo/cube.b2nd[99]"], "invalid-selection", 2, "cat2 info"),
        (["roots", "--subscriber", "http://127.0.0.1:1"], "unavailable", 5, None),
        (["roots", "--subscriber", "nonsense"], "config", 2, None),
        (["roots", "--nonsense"], "usage", 2, "cat2 roots --help"),
        (["nonsense"], "usage", 2, "cat2 --help"),
        (["download", "foo/cube.b2nd", "file/below"], "system", 1, "choose another"),
    ],
)
def test_an_error_is_an_object_on_stderr(cat2, tmp_path, arguments, error, code, hint) -> None:
    (tmp_path / "file").write_text("")
    said = json.loads(cat2(*arguments, "--json", code=code))
    assert set(said) == {"error", "detail", "hint", "exit_code"}
    assert (said["error"], said["exit_code"]) == (error, code)
    assert said["detail"]
    assert hint is None or hint in said["hint"]


def test_a_service_says_where_it_listens(tmp_path) -> None:
    arguments = ["broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path), "--json"]
    environment = {**os.environ, "CATERVA2_CONFIG": os.devnull}
    with subprocess.Popen(
        [sys.executable, "-m", "caterva2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as broker:
        assert broker.stdout is not None
        said = json.loads(broker.stdout.readline())
        assert said["service"] == "broker"
        assert said["url"].startswith("http://127.0.0.1:")
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(30) == 0


def test_names_that_are_near_are_told(cat2) -> None:
    assert "did you mean 'foo/cube.b2nd'?" in cat2("info", "foo/cub.b2nd", code=3)
    assert "did you mean 'foo/dir1/ds-2d.b2nd'" in cat2("show", "foo/ds-2d.b2nd[0]", code=3)
    assert "did you mean 'foo'" in cat2("list", "fo", code=3)
    assert "did you mean" not in cat2("info", "foo/quite-another-thing", code=3)
