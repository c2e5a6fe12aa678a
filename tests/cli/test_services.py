from __future__ import annotations

from pathlib import Path

import pytest

from caterva2.cli.services import parse_roots
from caterva2.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "roots"),
    [
        (["foo", "DIR"], {"foo": "DIR"}),
        (["foo", "a=b"], {"foo": "a=b"}),
        (["foo=DIR"], {"foo": "DIR"}),
        (["foo=DIR", "bar=with space=x"], {"foo": "DIR", "bar": "with space=x"}),
    ],
)
def test_roots(arguments, roots) -> None:
    assert parse_roots(arguments) == {name: Path(directory) for name, directory in roots.items()}


@pytest.mark.parametrize("arguments", [[], ["foo"], ["foo", "a", "b"], ["=x"], ["foo="], ["a=x", "a=y"]])
def test_what_names_no_root(arguments) -> None:
    with pytest.raises(ConfigError):
        parse_roots(arguments)


@pytest.mark.parametrize("flag", ["--full", "--meta"])
def test_how_to_follow_needs_what_to_follow(flag, tmp_path, monkeypatch, capsys):
    from caterva2.cli import main

    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "none.toml"))
    assert main(["subscriber", flag, "--state", str(tmp_path / "state")]) == 2
    assert "--follow" in capsys.readouterr().err
