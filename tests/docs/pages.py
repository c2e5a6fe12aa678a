"""The examples of the documentation: its fenced blocks, in order, with what is said of them in comments.

``<!-- not run: REASON -->`` above a block says why it cannot be run as it stands. Anywhere in a page,
``<!-- data: NAME, NAME -->`` names files that are to be in the root ``foo`` beside those that are always
there; see `samples`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorial").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    ROOT / "docs" / "reference" / "python.md",
]
"""Those whose examples are run."""

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_DATA = re.compile(r"^<!-- data: ([^\n]+?) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line that this begins on, and why it is not run, if so."""

    language: str
    text: str
    line: int
    reason: str | None


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in some languages, or in all of them."""
    content = page.read_text(encoding="utf-8")
    return [
        Block(
            match["language"], match["text"], content.count("\n", 0, match.start("text")) + 1, match["reason"]
        )
        for match in _BLOCK.finditer(content)
        if not languages or match["language"] in languages
    ]


def data_of(page: Path) -> list[str]:
    """Return the names of the sample files that a page asks for."""
    found = _DATA.findall(page.read_text(encoding="utf-8"))
    return [name.strip() for names in found for name in names.split(",")]
