import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2.bus.keys import data_key, parse_data_key, parse_root_key, root_filter, root_key
from caterva2.errors import InvalidPath
from caterva2.model.path import DatasetPath, parse_path

ROOTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
PARTS = st.text(
    st.characters(min_codepoint=32, exclude_characters="/\\\x7f", exclude_categories=["Cs"]), min_size=1
)
NAMES = st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map("/".join)
ALLOWED = re.compile(r"[-/_=.A-Za-z0-9]+")


@settings(deadline=None)  # the machine may be busy
@given(ROOTS, NAMES)
def test_every_dataset_has_a_key_that_names_it(root, name):
    key = data_key(root, name)
    assert ALLOWED.fullmatch(key)
    assert key.count(".") == 1
    assert key.startswith(root_filter(root)[:-1])
    assert parse_data_key(key) == DatasetPath(root, name)


@settings(deadline=None)  # the machine may be busy
@given(ROOTS)
def test_every_root_has_a_key_of_one_token_that_names_it(root):
    assert "." not in root_key(root)
    assert parse_root_key(root_key(root)) == root


@settings(deadline=None)  # the machine may be busy
@given(st.text(st.sampled_from("ab.=/2EFef0-_"), max_size=12))
def test_a_key_is_the_only_one_of_its_dataset_or_refused(key):
    try:
        path = parse_data_key(key)
    except InvalidPath:
        return
    assert parse_path(str(path)) == path
    assert data_key(path.root, path.name) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "foo",
        "foo.",
        ".bar",
        "foo.a.b",
        "foo.=41",
        "foo.=2e",
        "foo.=F",
        "foo.=FF",
        "foo.=2E=2E/x",
        "a=20.x",
    ],
)
def test_malformed_keys_are_refused(key):
    with pytest.raises(InvalidPath):
        parse_data_key(key)


def test_longest_name_fits_a_control_line():
    name = "é" * 511  # 1022 bytes
    assert len(f"HPUB $KV.C2_DATA.{data_key('a', name)} _INBOX.{'x' * 44} 999 999\r\n") < 4096
