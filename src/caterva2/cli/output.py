"""Printing: JSON, members, numbers as people read them, and what must not reach a terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from caterva2.client.text import human_bytes, human_shape, visible

__all__ = [
    "counted",
    "human_bytes",
    "human_shape",
    "is_terminal",
    "print_json",
    "print_members",
    "styled",
    "visible",
    "width",
]


def is_terminal() -> bool:
    """Whether somebody looks at stdout."""
    return sys.stdout.isatty()


def width() -> int:
    """Return how many characters fit a line: of the terminal, else 80."""
    return shutil.get_terminal_size((80, 24)).columns if is_terminal() else 80


def print_json(value: Any) -> None:  # Any: JSON
    """Print a value as JSON: indented for a reader, on one line for a pipe."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not utf8, allow_nan=False, indent=2 if is_terminal() else None))


def styled(text: str, style: str) -> str:
    """Return a text for stdout in a style of rich, such as ``bold red``; as it is where nobody looks."""
    if not is_terminal():
        return text
    from rich.console import Console
    from rich.text import Text

    console = Console()  # it knows of NO_COLOR and of terminals that have no styles
    with console.capture() as captured:
        console.print(Text(text, style), end="", soft_wrap=True)
    return captured.get()


def print_members(value: Mapping[str, Any], indent: int = 0) -> None:
    """Print an object as lines of ``name: value``, inner ones indented."""
    names = [visible(str(name)) for name in value]
    size = max((len(name) for name in names), default=0) + 1
    for name, inner in zip(names, value.values(), strict=True):
        if isinstance(inner, Mapping) and inner:
            print(f"{' ' * indent}{name}:")
            print_members(inner, indent + 2)
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
            print(f"{' ' * indent}{(name + ':').ljust(size)} {visible(text)}")


def counted(count: int, noun: str) -> str:
    """Return a number of things: ``1 dataset``, ``1,200 datasets``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
