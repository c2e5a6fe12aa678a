"""How much memory there is."""

import os

import pytest

from caterva2 import memory


@pytest.fixture
def limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP_LIMITS", [tmp_path / "memory.max"])
    return tmp_path / "memory.max"


def test_the_machine_has_what_it_says(limit) -> None:
    assert memory.memory_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("text", "size"), [("1048576\n", 1 << 20), ("max\n", None), (f"{1 << 62}\n", None)])
def test_a_container_may_have_less(limit, text, size) -> None:
    whole = memory.memory_bytes()
    limit.write_text(text)
    assert memory.memory_bytes() == (size or whole)
