"""Every verb, setting and error can be looked up; links between pages lead somewhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from caterva2 import config, errors

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_each_verb_has_a_heading() -> None:
    from caterva2.cli import VERBS

    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if not re.search(rf"^#+ .*\b{verb}\b", text, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "settings",
    [config.BrokerSettings, config.PublisherSettings, config.SubscriberSettings, config.ClientSettings],
)
def test_each_setting_is_documented(settings: type) -> None:
    text = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    assert [field.name for field in fields(settings) if f"`{field.name}`" not in text] == []


def test_each_error_is_documented() -> None:
    text = (ROOT / "docs/reference/rest.md").read_text(encoding="utf-8")
    kinds = [getattr(errors, name) for name in errors.__all__]
    inner = {"error", "bus", "cannot-listen", "config", "state-in-use"}  # never sent over HTTP
    assert [kind.slug for kind in kinds if kind.slug not in inner and kind.slug not in text] == []


def test_each_option_says_what_it_is_for() -> None:
    from caterva2.cli import VERBS
    from caterva2.cli.app import build_app

    silent = []
    for verb in VERBS:
        app = build_app()
        for word in verb.split():
            app = app[word]
        shown = [argument for argument in app.assemble_argument_collection() if argument.show]
        silent += [(verb, argument.name) for argument in shown if not argument.parameter.help]
    assert silent == []
