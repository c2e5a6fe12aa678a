"""Tables with a column for each size: what is the same in all of them is constant."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Table", "ms", "percentile"]


@dataclass
class Table:
    """What was measured, by what and by size.

    Attributes
    ----------
    title : str
    sizes : list of str
    rows : dict of str to list
        A value for each size: a number of the unit that the name says.
    """

    title: str
    sizes: list[str] = field(default_factory=list)
    rows: dict[str, list[float]] = field(default_factory=dict)

    def add(self, size: str, column: Mapping[str, float]) -> None:
        self.sizes.append(size)
        for what, value in column.items():
            self.rows.setdefault(what, []).append(value)

    def markdown(self) -> str:
        lines = [f"| {self.title} | {' | '.join(self.sizes)} |", "|---" * (1 + len(self.sizes)) + "|"]
        lines += [f"| {what} | {' | '.join(map(_short, values))} |" for what, values in self.rows.items()]
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        return {"title": self.title, "sizes": self.sizes, "rows": self.rows}


def _short(value: float) -> str:
    if value and abs(value) < 1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def ms(action: Callable[[], object]) -> float:
    """Return how long something takes, in milliseconds."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3
