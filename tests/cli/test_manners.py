"""What comes of what is typed wrongly, of nothing, and of Ctrl-C: each message says what to do next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from caterva2.cli import main


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["shwo"], 2, 'Did you mean "show"'),
        (["cache", "dorp"], 2, 'Did you mean "drop"'),
        (["show"], 2, "cat2 show --help"),
        (["config", "--exampl"], 2, "Did you mean --example"),
        (["show", "/etc/passwd"], 2, "write root/dir/name"),
        (["show", ""], 2, "write root/dir/name"),
        (["show", "foo"], 3, "cat2 list foo"),
        (["list", "foo/dri1"], 3, "'foo/dir1'"),
        (["show", "foo/dir1"], 3, "is a directory: cat2 list foo/dir1"),
        (["show", "foo/dir1[0]"], 3, "is a directory: cat2 list foo/dir1"),
        (["info", "foo/dir1"], 3, "is a directory: cat2 list foo/dir1"),
        (["download", "foo/dir1"], 3, "is a directory: cat2 list foo/dir1"),
        (["info", "fo/cube.b2nd"], 3, "did you mean 'foo'?"),
        (["roots", "--subscriber", "http://127.0.0.1:1"], 5, "is it running? (cat2 subscriber)"),
        (["bus", "check", "--broker", "http://127.0.0.1:1"], 5, "is it running? (cat2 broker)"),
        (["roots", "--token-file", "absent"], 2, "cat2 config"),
        (["subscriber", "--quota", "big"], 2, "flag --quota: 'big' is not a size: write 10GB"),
        (["serve", "foo=absent"], 2, "absent does not exist"),
        (["serve", "foo=.", "--port", "70000"], 2, "--port"),
        (["serve"], 2, "NAME=DIR"),
        (["unfollow", "bar"], 3, "not followed"),
        (["completion", "tcsh"], 2, "bash"),
    ],
)
def test_a_message_says_what_to_do_next(cat2, arguments, code, words) -> None:
    assert words in cat2(*arguments, code=code)


def test_another_service_than_was_meant_says_so(cat2, running) -> None:
    broker = running.cluster.broker.address.url
    assert "Caterva2 broker has no /api/info" in cat2("info", "foo/cube.b2nd", "--subscriber", broker, code=3)
    publisher = running.cluster.publisher.address.url
    assert "Caterva2 publisher has no" in cat2("follow", "foo", "--subscriber", publisher, code=3)


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_help(cat2, arguments) -> None:
    text = cat2(*arguments)
    assert all(group in text for group in ("Reading", "Cache", "Services", "Setting up"))


def test_help_of_a_verb(cat2) -> None:
    assert cat2("help", "cache", "drop") == cat2("cache", "drop", "--help")
    assert cat2("--version")[0].isdigit()


def test_a_message_cannot_control_the_terminal(cat2) -> None:
    assert "\x1b" not in cat2("info", "foo/\x1b[31mred", code=2)


def test_a_state_directory_below_a_file(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "none.toml"))
    (tmp_path / "file").write_text("")
    assert main(["broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "file" / "state")]) == 1
    assert "choose another one" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupt_ends_it_with_130_and_no_traceback(running, tmp_path) -> None:
    environment = {
        **os.environ,
        "CATERVA2_SUBSCRIBER": running.url,
        "CATERVA2_CONFIG": str(tmp_path / "none.toml"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "caterva2", "events"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
        assert process.wait(30) == 130
