"""Every example of the documentation runs, or says why it does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .pages import PAGES, ROOT, blocks_of, data_of
from .run import PageRun
from .samples import FILES

pytestmark = pytest.mark.skipif(
    os.name == "nt" or shutil.which("bash") is None, reason="the commands are for a shell of Unix"
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_examples_of_a_page(site, page: Path) -> None:
    with PageRun(site, page) as run:
        run.run()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_data_that_a_page_asks_for_is_known(page: Path) -> None:
    assert set(data_of(page)) <= set(FILES)


NOT_RUN = {
    "docs/how-to/existing-clients.md": 1,
    "docs/how-to/follow.md": 1,
    "docs/how-to/fsspec.md": 1,
    "docs/how-to/further-sources.md": 1,
    "docs/how-to/http-cache.md": 2,
    "docs/how-to/internet.md": 2,
    "docs/how-to/lan.md": 1,
    "docs/how-to/mirror.md": 1,
    "docs/how-to/napari.md": 1,
    "docs/how-to/nats-cluster.md": 2,
    "docs/how-to/tiers.md": 2,
    "docs/reference/python.md": 1,
}
"""How many blocks of each page are marked; whoever marks one changes this, so that none goes unnoticed."""


def test_what_is_not_run_is_known() -> None:
    marked = {name_of(page): [b for b in blocks_of(page, "sh", "python") if b.reason] for page in PAGES}
    assert {name: len(blocks) for name, blocks in marked.items() if blocks} == NOT_RUN


def broken_page(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", "page.md.*line 6"),
        ("```sh\ncat2 list foo\ncat2 list bar\n```\n", "no root 'bar'"),
        ("```python\nawait nothing\n```\n", "NameError"),
    ],
)
def test_an_example_that_fails_is_found(site, tmp_path, text: str, said: str) -> None:
    with PageRun(site, broken_page(tmp_path, text)) as run, pytest.raises(AssertionError, match=said):
        run.run()


def test_what_is_marked_is_not_run(site, tmp_path) -> None:
    page = broken_page(tmp_path, "<!-- not run: it is wrong -->\n```python\n1 / 0\n```\n")
    with PageRun(site, page) as run:
        run.run()
    assert [block.reason for block in blocks_of(page)] == ["it is wrong"]
