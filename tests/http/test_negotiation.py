from __future__ import annotations

import pytest

from caterva2.http.negotiation import BLOCKS_TYPE, prefers_blocks, slice_form

RAW, NPY = "application/vnd.caterva2.raw", "application/x-npy"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "cframe"),
        ("", "cframe"),
        ("*/*", "cframe"),
        ("text/html", "cframe"),
        ("application/octet-stream", "cframe"),
        (NPY, "npy"),
        (RAW, "raw"),
        (RAW.upper(), "raw"),
        (f"{NPY};q=0.5, {RAW};q=0.9", "raw"),
        (f"{NPY}; q=0.9 , {RAW};q=0.5", "npy"),
        (f"{RAW};q=0", "cframe"),
        (f"{RAW};q=x, {NPY};q=0.1", "npy"),
        (f"{RAW};q=nan, {NPY};q=0.1", "npy"),
        (f"*/*;q=0.1, {NPY}", "npy"),
    ],
)
def test_the_form_preferred(accept, form) -> None:
    assert slice_form(accept) == form


@pytest.mark.parametrize(
    ("accept", "blocks", "otherwise"),
    [
        (None, False, "cframe"),
        ("*/*", False, "cframe"),
        (NPY, False, "npy"),
        (BLOCKS_TYPE, True, "cframe"),
        (f"{BLOCKS_TYPE}, {NPY};q=0.5", True, "npy"),
        (f"{BLOCKS_TYPE}, {NPY}", False, "npy"),
        (f"{BLOCKS_TYPE};q=0.4, {NPY};q=0.5", False, "npy"),
        (f"{BLOCKS_TYPE};q=0", False, "cframe"),
    ],
)
def test_blocks_are_a_form_that_not_every_slice_has(accept, blocks, otherwise) -> None:
    assert prefers_blocks(accept) == blocks
    assert slice_form(accept) == otherwise
