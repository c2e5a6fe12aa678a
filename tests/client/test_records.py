"""Records have the members of the JSON of the API."""

from __future__ import annotations

import dataclasses

import pytest

from caterva2.client import Followed, RootInfo, Row

ROOT = {
    "name": "foo",
    "state": "online",
    "datasets": 3,
    "bytes": 9,
    "publisher": None,
    "title": "",
    "behind": 0,
    "reset_at": None,
    "freshness": "unverified",
    "age_s": None,
    "tiers": 2,
}
ROW = {"path": "foo/x", "kind": "array", "size": 9, "shape": [2, 3], "dtype": "int32", "etag": "ab"}
ROW |= {"generation": 5, "mtime": "2020-01-01T00:00:00+00:00", "error": None}
FOLLOWED = {"path": "foo/x", "etag": "ab", "size": 9, "cached_bytes": 3, "complete": False}
FOLLOWED |= {"mode": "full", "freshness": "fresh", "age_s": None}


@pytest.mark.parametrize(("kind", "json"), [(RootInfo, ROOT), (Row, ROW), (Followed, FOLLOWED)])
def test_a_record_is_its_json(kind, json) -> None:
    record = kind.from_json(json | {"added": "later"})
    again = dataclasses.asdict(record)
    assert again == json | ({"shape": (2, 3)} if "shape" in json else {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, next(iter(json)), "other")
    for name in json:
        with pytest.raises(KeyError):
            kind.from_json({key: value for key, value in json.items() if key != name})
