"""The directive ``cat2-options``: all verbs of the command line with what they take, as the parser has it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cyclopts import App
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from caterva2.cli import VERBS
from caterva2.cli.app import build_app


def arguments_of(app: App, verb: str) -> Iterator[tuple[str, str]]:
    """Yield what a verb takes: its name, or the names of an option with what it takes; and what it is for."""
    for word in verb.split():
        app = app[word]
    for argument in app.assemble_argument_collection():
        if not argument.show:
            continue
        names = [name for name in argument.names if not name.startswith(("--no-", "--empty-"))]
        text = ", ".join(names)
        if text.startswith("-") and argument.hint is not bool:
            text += f" {names[-1].lstrip('-').rpartition('-')[2].upper()}"
        yield text, argument.parameter.help or ""


def described(text: str) -> nodes.paragraph:
    """Return a text with what is to be typed in it as it is typed."""
    paragraph = nodes.paragraph()
    for part in re.split(r"(--[\w-]+|'[^']*'|\b[A-Z]+_[A-Z_]+\b)", text):
        paragraph += nodes.literal(text=part) if re.match(r"--|'|[A-Z]+_", part) else nodes.Text(part)
    return paragraph


class OptionsDirective(SphinxDirective):
    """A section for each verb."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        app = build_app()
        return [self._section(app, name) for name in VERBS]

    def _section(self, app: App, verb: str) -> nodes.section:
        title = f"cat2 {verb}"
        section = nodes.section(ids=[nodes.make_id(f"options of {title}")], names=[])
        section += nodes.title(text=title)
        section += described(VERBS[verb].help)
        options = nodes.definition_list()
        for names, text in arguments_of(app, verb):
            term = nodes.term("", "", nodes.literal(text=names))
            options += nodes.definition_list_item("", term, nodes.definition("", described(text)))
        section += options
        return section


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx know it."""
    app.add_directive("cat2-options", OptionsDirective)
    return {"parallel_read_safe": True}
