import re

import pytest

from caterva2.bus.buckets import BUCKETS
from caterva2.bus.permissions import permissions_of, server_block


def writes(role, roots=(), **options):
    return {subject for subject in permissions_of(role, roots, **options).publish if subject[:4] == "$KV."}


def test_only_publishers_write_and_only_their_roots():
    assert writes("subscriber") == writes("broker") == set()
    assert writes("publisher", ["foo"]) == {"$KV.C2_ROOTS.foo", "$KV.C2_ALIVE.foo", "$KV.C2_DATA.foo.>"}
    assert writes("publisher", ["a.b"]) == {"$KV.C2_ROOTS.a=2Eb", "$KV.C2_ALIVE.a=2Eb", "$KV.C2_DATA.a=2Eb.>"}
    assert writes("publisher") == {f"$KV.C2_{bucket}.>" for bucket in ("ROOTS", "ALIVE", "DATA")}
    assert writes("subscriber", republish=True) == {"$KV.C2_SOURCES.*"}


def test_only_the_broker_makes_buckets():
    for role in ("broker", "publisher", "subscriber"):
        made = [subject for subject in permissions_of(role).publish if ".CREATE.KV_" in subject]
        streams = [subject for subject in made if subject.startswith("$JS.API.STREAM.")]
        assert bool(streams) == (role == "broker")


@pytest.mark.parametrize("bucket", BUCKETS)
def test_everybody_reads_every_bucket(bucket):
    for role in ("broker", "publisher", "subscriber"):
        permitted = permissions_of(role, ["foo"])
        assert f"$JS.API.STREAM.INFO.KV_{bucket}" in permitted.publish
        assert f"$JS.API.CONSUMER.CREATE.KV_{bucket}.*.$KV.{bucket}.>" in permitted.publish
        assert f"$JS.FC.KV_{bucket}.>" in permitted.publish
        assert permitted.subscribe == ("_INBOX.>",)


def test_users_of_a_leaf_node_are_permitted_what_it_maps_to():
    subjects = permissions_of("publisher", ["foo"], domain="hub").publish
    assert {"$JS.hub.API.$KV.C2_DATA.foo.>", "$JS.hub.API.STREAM.INFO.KV_C2_DATA"} < set(subjects)
    assert not [subject for subject in subjects if subject.startswith(("$KV", "$JS.API"))]
    assert "$JS.FC.KV_C2_DATA.>" in subjects


def test_block_has_no_password():
    block = server_block("caterva2-publisher-foo", permissions_of("publisher", ["foo"]))
    assert re.findall(r"password: (\S+),", block) == ["$CATERVA2_PUBLISHER_FOO_PASSWORD"]
