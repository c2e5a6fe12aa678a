"""Trees of roots, directories and datasets: taken once, then text or HTML without asking anybody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from caterva2.client.records import Row
from caterva2.client.text import human_bytes, human_shape, visible

__all__ = ["MAX_NODES", "Tree", "grow"]

MAX_NODES = 500
"""Datasets that a tree shows unless said otherwise."""

MOST_TEXT = 60
"""Characters of a dtype that are shown: structured ones can be long."""


@dataclass(slots=True)
class _Node:
    """A root, a directory or a dataset."""

    name: str
    said: str = ""
    children: dict[str, _Node] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        children = [child.to_json() for child in self.children.values()]
        return {"name": self.name, "detail": self.said, "children": children}


class Tree:
    """What ``tree()`` gives: text where it is printed, nested lists in a notebook.

    Parameters
    ----------
    title : str
    nodes : iterable of _Node
    complete : bool
        Nothing was left out.
    """

    def __init__(self, title: str, nodes: Iterable[_Node], *, complete: bool = True) -> None:
        self._title = title
        self._nodes = list(nodes)
        if not complete:
            self._nodes.append(_Node("…", "there are more: ask for a larger max_nodes (cat2 tree: --count)"))

    def __str__(self) -> str:
        return "\n".join([visible(self._title), *_lines(self._nodes, "")])

    __repr__ = __str__

    def to_json(self) -> list[dict[str, Any]]:  # Any: JSON
        """Return it as lists of objects: ``name``, ``detail`` and ``children``."""
        return [node.to_json() for node in self._nodes]

    def _repr_html_(self) -> str:
        return f"<div><code>{escape(self._title)}</code>{_list(self._nodes)}</div>"


def grow(
    title: str, groups: Iterable[tuple[str, str, Iterator[Row]]], level: int | None, max_nodes: int
) -> Tree:
    """Return a tree of datasets.

    Parameters
    ----------
    title : str
    groups : iterable
        For each root its name, what is said of it, and its datasets: no more of them are taken than are
        shown. With the name ``""`` they stand at the top, and the title is the path that they are below.
    level : int or None
        How deep it goes; all the way by default.
    max_nodes : int
        Most datasets that are looked at.
    """
    top, left, complete = _Node(title), max_nodes, True
    for name, said, rows in groups:
        parent = top.children.setdefault(name, _Node(name, said)) if name else top
        deep = level - 1 if name and level is not None else level
        if deep is not None and deep < 1:
            continue
        for row in rows:
            if not left:
                complete = False
                break
            left -= 1
            _add(parent, row, name or title, deep)
    return Tree(title, top.children.values(), complete=complete)


def _add(parent: _Node, row: Row, below: str, level: int | None) -> None:
    *directories, name = row.path.removeprefix(f"{below}/").split("/")
    for depth, directory in enumerate(directories):
        if level is not None and depth >= level:
            return
        parent = parent.children.setdefault(f"{directory}/", _Node(f"{directory}/"))
    if level is None or len(directories) < level:
        parent.children[name] = _Node(name, _said(row))


def _said(row: Row) -> str:
    if row.error:
        return f"{human_bytes(row.size)}, unreadable: {row.error}"
    if row.shape is None:
        return f"{row.kind}, {human_bytes(row.size)}"
    dtype = str(row.dtype)
    short = dtype if len(dtype) <= MOST_TEXT else f"{dtype[: MOST_TEXT - 1]}…"
    return f"{human_shape(row.shape)} {short}, {human_bytes(row.size)}"


def _lines(nodes: list[_Node], indent: str) -> Iterator[str]:
    for node in nodes:
        last = node is nodes[-1]
        said = f"  {node.said}" if node.said else ""
        yield f"{indent}{'└── ' if last else '├── '}{visible(node.name)}{visible(said)}"
        yield from _lines(list(node.children.values()), f"{indent}{'    ' if last else '│   '}")


def _list(nodes: list[_Node]) -> str:
    items = []
    for node in nodes:
        said = f"<code>{escape(node.name)}</code> {escape(node.said)}"
        if node.children:
            inside = _list(list(node.children.values()))
            said = f"<details open><summary>{said}</summary>{inside}</details>"
        items.append(f"<li>{said}</li>")
    return f"<ul>{''.join(items)}</ul>"
