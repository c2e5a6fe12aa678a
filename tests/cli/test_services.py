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
