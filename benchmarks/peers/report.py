"""The tables: a row for each measure, the best remote peer of that row, and ours as a multiple of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["markdown"]

Summary = Mapping[str, Any]
NONE = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Row:
    """A measure.

    Parameters
    ----------
    title : str
    path : sequence of str
        Where it is in the summary of a system.
    low : bool
        Whether less is better.
    goal : float, optional
        What ours should be as a multiple of the best peer: at most if less is better, else at least.
    limit : float, optional
        What ours should be at most, whatever peers are.
    scale : float
        What the value is multiplied with for the table.
    """

    title: str
    path: Sequence[str]
    low: bool = True
    goal: float | None = None
    limit: float | None = None
    scale: float = 1.0

    def of(self, summary: Summary) -> float | None:
        """Return its value for a system, if it was measured."""
        found: Any = summary
        for step in self.path:
            if not isinstance(found, Mapping) or step not in found:
                return None
            found = found[step]
        return None if found is None else float(found) * self.scale


SMALL = (("element", "element"), ("ten", "10³"))
PLANES = tuple((f"plane-{axis}", f"plane {axis}") for axis in "xyz")
LARGE = (("cube", "cube"), ("whole", "whole"))


def near_rows() -> list[Row]:
    """Return the rows of the table of times on one machine."""
    rows = []
    for kind, title in SMALL:
        rows.append(Row(f"{title}, p50 ms", ("near", kind, "p50_ms"), goal=0.6))
        rows.append(Row(f"{title}, p95 ms", ("near", kind, "p95_ms")))
    for kind, title in PLANES:
        rows.append(
            Row(f"{title}, p50 ms", ("near", kind, "p50_ms"), goal=0.25 if kind == "plane-x" else 0.8)
        )
    rows.append(Row("cube, MB/s", ("near", "cube", "mb_per_s"), low=False, goal=1.5))
    rows.append(Row("whole, MB/s", ("near", "whole", "mb_per_s"), low=False, goal=1.1))
    rows.append(Row("16 clients, 10³, requests/s", ("crowd", "per_s"), low=False, goal=1.5))
    rows.append(Row("16 clients, 10³, p99 ms", ("crowd", "p99_ms")))
    return rows


def cost_rows() -> list[Row]:
    """Return the rows of the table of what those reads cost."""
    rows = []
    for kind, title in (*SMALL, *PLANES, *LARGE):
        limit = 0.3 if (kind, title) in SMALL else None
        rows.append(Row(f"{title}, server CPU ms", ("near", kind, "server_cpu_ms"), limit=limit))
    rows.append(Row("16 clients, 10³, server CPU ms", ("crowd", "server_cpu_ms"), limit=0.3))
    for kind, title in (*SMALL, *PLANES, *LARGE):
        rows.append(Row(f"{title}, client CPU ms", ("near", kind, "client_cpu_ms")))
    for kind, title in (*SMALL, *PLANES, *LARGE):
        rows.append(Row(f"{title}, kB on the wire", ("wire", kind, "wire_bytes"), scale=1e-3))
    rows.append(Row("server, peak memory MB", ("server_peak_mb",)))
    rows.append(Row("client, peak memory MB", ("client_peak_mb",)))
    rows.append(Row("opening the array, ms", ("open_ms",)))
    return rows


def far_rows() -> list[Row]:
    """Return the rows of the table of the slow link."""
    rows = []
    for kind, title in (*SMALL, *PLANES, LARGE[0]):
        goal = {"plane-x": 1.1, "cube": 0.8}.get(kind)
        limit = 24.0 if kind == "element" else None
        rows.append(Row(f"{title}, cold, p50 ms", ("far", kind, "p50_ms"), goal=goal, limit=limit))
    for kind, title in (*SMALL, *PLANES, LARGE[0]):
        rows.append(Row(f"{title}, cold, kB over the link", ("far", kind, "wire_bytes"), scale=1e-3))
    for kind, title in (*SMALL, *PLANES, LARGE[0]):
        rows.append(Row(f"{title}, once more, p50 ms", ("again", kind, "p50_ms")))
    for kind, title in (*SMALL, *PLANES, LARGE[0]):
        path = ("again", kind, "wire_bytes")
        rows.append(Row(f"{title}, once more, kB over the link", path, scale=1e-3, limit=0.0))
    return rows


def markdown(results: Mapping[str, Any]) -> str:
    """Return a page of tables from what is written as JSON."""
    systems: Mapping[str, Summary] = results["systems"]
    lines = [
        f"Measured on {results['date']}: {results['machine']}. {results['array']} {versions(systems)}",
        "",
    ]
    lines += [f"- not run: {one['title']}: {one['not_run']}" for one in systems.values() if one["not_run"]]
    for title, rows in (
        ("On one machine", near_rows()),
        ("What it costs on one machine", cost_rows()),
        (f"Through {results['link']}", far_rows()),
    ):
        found = table(rows, list(systems.values()))
        lines += ["", f"### {title}", "", *found] if len(found) > 2 else []
    return "\n".join(lines).rstrip() + "\n"


def versions(systems: Mapping[str, Summary]) -> str:
    """Return which versions were measured."""
    found = {f"{one['package']} {one['version']}" for one in systems.values() if one["version"]}
    ours = [one["version"] for one in systems.values() if one["kind"] == "ours"]
    return "Versions: " + ", ".join(sorted(found)) + (f"; ours is {ours[0]}" if ours else "") + "."


def table(rows: Sequence[Row], systems: Sequence[Summary]) -> list[str]:
    """Return the lines of a table, without the rows and systems of which nothing was measured."""
    ours = next((one for one in systems if one["kind"] == "ours"), {})
    others = [one for kind in ("variant", "peer", "copy") for one in systems if one["kind"] == kind]
    others = [one for one in others if any(row.of(one) is not None for row in rows)]
    marks = [one["title"] + (" †" if one["kind"] == "copy" else "") for one in others]
    head = ["", "ours", "ours ÷ best peer", "goal", *marks]
    lines = [line(head), line(["---"] * len(head))]
    for row in rows:
        mine = row.of(ours)
        found = [row.of(one) for one in others]
        if mine is None and not any(value is not None for value in found):
            continue
        peers = [value for one, value in zip(others, found, strict=True) if one["kind"] == "peer"]
        best = best_of(peers, low=row.low)
        cells = [
            f"**{number(value)}**" if value == best and one["kind"] == "peer" and best else number(value)
            for one, value in zip(others, found, strict=True)
        ]
        ratio = NONE if mine is None or not best else f"{mine / best:.2f} {TIMES}"
        lines.append(line([row.title, number(mine), ratio, goal(row, mine, best), *cells]))
    return lines


def best_of(values: Sequence[float | None], *, low: bool) -> float | None:
    """Return the best value, if there is any."""
    there = [value for value in values if value is not None]
    choose: Callable[[Sequence[float]], float] = min if low else max
    return choose(there) if there else None


def goal(row: Row, mine: float | None, best: float | None) -> str:
    """Return the goal of a row, and whether it is reached."""
    wanted, reached = [], []
    if row.goal is not None:
        wanted.append(f"{'≤' if row.low else '≥'} {row.goal:g} {TIMES}")
        if mine is not None and best:
            reached.append(mine / best <= row.goal if row.low else mine / best >= row.goal)
    if row.limit is not None:
        wanted.append(f"≤ {row.limit:g}")
        if mine is not None:
            reached.append(mine <= row.limit)
    if not wanted:
        return ""
    verdict = "" if not reached else " met" if all(reached) else " **missed**"
    return ", ".join(wanted) + verdict


def number(value: float | None) -> str:
    """Return a value with about three digits."""
    if value is None:
        return NONE
    if value and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 100 and value else f"{value:,.0f}"


def line(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"
