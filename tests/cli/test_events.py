"""``cat2 events``: lines for people and for scripts, and when it ends."""

from __future__ import annotations

import json

import pytest

from caterva2.cli import main
from caterva2.client import connect
from caterva2.frame.write import write_array


@pytest.fixture
def listen(running, monkeypatch, capsys, tmp_path):
    """Run ``cat2 events``, for 20 s at most; return exit code, lines of stdout, and stderr."""
    monkeypatch.setenv("CATERVA2_SUBSCRIBER", running.url)
    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "none.toml"))

    def listen(*arguments: str) -> tuple[int, list[str], str]:
        code = main(["events", *(arguments if "--for-s" in arguments else (*arguments, "--for-s", "20"))])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return listen


@pytest.fixture
def three(running, root):
    """Three events that happened just now, as a client saw them."""
    file = root / "heard.b2nd"
    with connect(running.url) as client, client.events("foo/heard*") as stream:
        write_array(file, range(10))
        seen = [next(stream)]
        write_array(file, range(20))
        seen.append(next(stream))
        file.unlink()
        seen.append(next(stream))
    return seen


def test_what_came_behind_an_event_is_printed(listen, three) -> None:
    first, *others = three
    code, lines, err = listen("foo/heard*", "--since", first.id, "--count", "2", "--json")
    assert code == 0
    assert [json.loads(line) for line in lines] == [
        {
            "id": event.id,
            "kind": event.kind,
            "path": "foo/heard.b2nd",
            "time": event.time,
            "etag": event.etag,
            "generation": event.generation,
        }
        for event in others
    ]
    assert [event.kind for event in three] == ["created", "changed", "deleted"]
    assert "listening to foo/heard*" in err
    code, lines, _ = listen("foo/heard*", "--since", first.id, "--count", "2")
    assert code == 0
    assert [line.split()[1:] for line in lines] == [[e.kind, "foo/heard.b2nd"] for e in others]


def test_it_says_that_events_may_have_been_missed(listen) -> None:
    code, lines, err = listen("foo", "--since", "another-7", "--count", "1", "--json")
    assert code == 0
    assert [json.loads(line)["kind"] for line in lines] == ["missed"]
    assert "missed" in err
    assert "cat2 list" in err


def test_it_ends_after_a_while(listen) -> None:
    assert listen("foo/nothing*", "--for-s", "0.1")[:2] == (0, [])
    assert listen("foo/nothing*", "--for-s", "0.1", "--count", "1")[:2] == (1, [])


def test_a_root_that_is_not_there_is_waited_for(listen) -> None:
    code, lines, err = listen("nope/*", "--for-s", "0.1")
    assert (code, lines) == (0, [])
    assert "no root 'nope' yet" in err
    assert "yet" not in listen("*pe/*", "--for-s", "0.1")[2]


@pytest.mark.parametrize(
    "arguments", [["/foo"], [""], ["foo", "--count", "0"], ["foo", "--for-s", "-1"], ["foo", "bar"]]
)
def test_what_makes_no_sense_is_refused(listen, arguments) -> None:
    code, lines, err = listen(*arguments)
    assert (code, lines) == (2, [])
    assert err
