"""Which datasets patterns name: the same as a look at each would find."""

from __future__ import annotations

import pytest

from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.model.pattern import matches
from caterva2.model.root import Entry
from caterva2.subscriber import naming
from caterva2.subscriber.naming import matching

NAMES = ["a", "a.b", "a/b", "a/bc/d", "a0", "ab/c", "b/a/x.b2nd", "b/a/y.b2nd", "x*y", "é/ü", "\U0010ffff"]
PATTERNS = [
    "foo",
    "fo",
    "foo/a",
    "foo/a/b",
    "foo/a*",
    "foo/*.b2nd",
    "*",
    "*.b2nd",
    "f?o/a/*",
    "foo*",
    "bar/[ab]",
]
PATTERNS += ["foo/x*y", "foo/é", "foo/\U0010ffff", "foo/b/a/?.b2nd", "none", "none/x", "foo/none", "foobar/a"]


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue()
    for root in ("foo", "bar", "foobar"):
        catalogue.set_root(root)
        for name in NAMES:
            catalogue.apply(root, name, Entry("x", 1, 1, "file", 0.0))
    return catalogue


@pytest.mark.parametrize("patterns", [[], *([pattern] for pattern in PATTERNS), PATTERNS[3:9], PATTERNS[1:3]])
def test_they_are_what_a_look_at_each_finds(catalogue: Catalogue, patterns: list[str]) -> None:
    paths = [DatasetPath(root, name) for root in catalogue.roots for name in NAMES]
    wanted = [path for path in paths if any(matches(pattern, str(path)) for pattern in patterns)]
    assert matching(catalogue, patterns) == sorted(wanted)


def test_only_what_can_match_is_looked_at(catalogue: Catalogue, monkeypatch) -> None:
    for number in range(1000):
        catalogue.apply("foo", f"many/{number:04}", Entry("x", 1, 1, "file", 0.0))
    looked: list[str] = []
    monkeypatch.setattr(
        naming, "matches", lambda pattern, path: looked.append(path) or matches(pattern, path)
    )
    assert len(matching(catalogue, ["foo/many/000?"])) == 10
    assert len(matching(catalogue, ["foo/a"])) == 3
    assert len(looked) < 20
