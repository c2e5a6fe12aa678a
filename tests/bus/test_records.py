import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2.bus.records import Claim, Heartbeat, decode_entry, encode_entry
from caterva2.errors import Corrupt
from caterva2.model.root import Entry

COUNTS = st.integers(0, 2**63)
AGES = st.floats(0, allow_infinity=False, allow_nan=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ENTRIES = st.builds(
    Entry,
    etag=st.text("0123456789abcdef", min_size=1),
    generation=COUNTS,
    size=COUNTS,
    kind=st.sampled_from(["array", "frame", "file"]),
    mtime=st.floats(allow_nan=False, allow_infinity=False),
    shape=st.none() | st.lists(COUNTS, max_size=8).map(tuple),
    dtype=st.none() | TEXT,
    error=st.none() | TEXT,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
GOOD = {
    "etag": "a",
    "generation": 1,
    "size": 2,
    "kind": "array",
    "mtime": 3.5,
    "shape": [4, 5],
    "dtype": "<i4",
}


@settings(deadline=None)  # the machine may be busy
@given(ENTRIES)
def test_entries_survive_the_bus(entry):
    assert decode_entry(encode_entry(entry)) == entry


@settings(deadline=None)  # the machine may be busy
@given(
    st.builds(Heartbeat, TEXT, TEXT, COUNTS, st.none() | TEXT, TEXT, COUNTS, COUNTS, AGES),
    st.builds(Claim, TEXT, TEXT, TEXT, COUNTS, TEXT, st.lists(TEXT, max_size=4).map(tuple)),
)
def test_heartbeats_and_claims_survive_the_bus(beat, claim):
    assert Heartbeat.decode(beat.encode()) == beat
    assert Claim.decode(claim.encode()) == claim


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=20) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_value_is_parsed_or_corrupt(value):
    for decode in (decode_entry, Heartbeat.decode, Claim.decode):
        with pytest.raises(Corrupt):
            decode(value)


@pytest.mark.parametrize("name", sorted(GOOD))
@settings(deadline=None)  # the machine may be busy
@given(value=JSON)
def test_any_member_is_accepted_as_its_type_or_corrupt(name, value):
    try:
        entry = decode_entry(json.dumps({**GOOD, name: value}).encode())
    except Corrupt:
        return
    assert decode_entry(encode_entry(entry)) == entry


def test_unknown_members_are_ignored():
    assert decode_entry(json.dumps({**GOOD, "colour": "red"}).encode()).shape == (4, 5)


def test_lone_surrogates_of_a_message_do_not_stop_an_announcement():
    entry = Entry("a", 1, 2, "file", 3.0, error="bad name \udcff")
    assert "bad name" in decode_entry(encode_entry(entry)).error


def test_what_tiers_add_may_be_missing_but_not_be_wrong():
    claim, beat = Claim("i", "http://u"), Heartbeat("i", "http://u", 1, None, "e", 2)
    older = json.loads(claim.encode()) | json.loads(beat.encode())
    for name in ("origin", "via", "age_s"):
        del older[name]
    assert Claim.decode(json.dumps(older).encode()) == claim
    assert Heartbeat.decode(json.dumps(older).encode()) == beat
    for decode, wrong in (
        (Claim.decode, {"via": "t"}),
        (Claim.decode, {"via": [1]}),
        (Claim.decode, {"origin": None}),
        (Heartbeat.decode, {"age_s": -1}),
        (Heartbeat.decode, {"age_s": True}),
        (Heartbeat.decode, {"age_s": "1"}),
        (Heartbeat.decode, {"age_s": float("inf")}),
    ):
        with pytest.raises(Corrupt, match=next(iter(wrong))):
            decode(json.dumps(older | wrong).encode())
