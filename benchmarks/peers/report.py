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
    ours_only: bool = False

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
    """Return the rows of the table without a link."""
    goals = {
        "element": 0.6,
        "ten": 0.6,
        "plane-x": 0.25,
        "plane-y": 0.8,
        "plane-z": 0.8,
        "cube": 1.5,
        "whole": 1.1,
    }
    rows = []
    for kind, title in SMALL:
        rows.append(Row(f"{title}, p50 ms", ("near", kind, "p50_ms"), goal=goals[kind]))
        rows.append(Row(f"{title}, p95 ms", ("near", kind, "p95_ms")))
    for kind, title in PLANES:
        rows.append(Row(f"{title}, p50 ms", ("near", kind, "p50_ms"), goal=goals[kind]))
    for kind, title in LARGE:
        rows.append(Row(f"{title}, MB/s", ("near", kind, "mb_per_s"), low=False, goal=goals[kind]))
    rows.append(Row("16 clients, 10³, requests/s", ("crowd", "per_s"), low=False, goal=1.5))
    rows.append(Row("16 clients, 10³, p99 ms", ("crowd", "p99_ms")))
    limits = {"element": 0.3, "ten": 0.3}
    for kind, title in (*SMALL, *PLANES[:2], LARGE[0]):
        rows.append(Row(f"{title}, server CPU ms", ("near", kind, "server_cpu_ms"), limit=limits.get(kind)))
    rows.append(Row("16 clients, server CPU ms a request", ("crowd", "server_cpu_ms"), limit=0.3))
    for kind, title in (*SMALL, *PLANES[:2], LARGE[0]):
        rows.append(Row(f"{title}, client CPU ms", ("near", kind, "client_cpu_ms")))
    for kind, title in (*SMALL, *PLANES, *LARGE):
        rows.append(Row(f"{title}, kB on the wire", ("wire", kind, "wire_bytes"), scale=1e-3))
    rows.append(Row("server, peak memory MB", ("server_peak_mb",)))
    rows.append(Row("client, peak memory MB", ("client_peak_mb",)))
    rows.append(Row("opening, ms", ("open_ms",)))
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
        rows.append(Row(f"{title}, once more, p50 ms", ("again", kind, "p50_ms"), ours_only=True))
    for kind, title in (*SMALL, *PLANES, LARGE[0]):
        path = ("again", kind, "wire_bytes")
        rows.append(Row(f"{title}, once more, kB over the link", path, scale=1e-3, limit=0.0, ours_only=True))
    return rows


def markdown(results: Mapping[str, Any]) -> str:
    """Return a page of tables from what is written as JSON."""
    systems: Mapping[str, Summary] = results["systems"]
    lines = [f"Measured on {results['date']}: {results['machine']}.", ""]
    lines += [f"{results['array']}", "", versions(systems), ""]
    lines += ["Remote peers stand to the left; what reads its own local copy in the end is marked †.", ""]
    lines += ["### On one machine", "", *table(near_rows(), systems), ""]
    lines += [f"### Through {results['link']}", "", *table(far_rows(), systems), ""]
    lines += [f"- not run: {one['title']}: {one['not_run']}" for one in systems.values() if one["not_run"]]
    return "\n".join(lines).rstrip() + "\n"


def versions(systems: Mapping[str, Summary]) -> str:
    """Return which versions were measured."""
    found = {f"{one['package']} {one['version']}" for one in systems.values() if one["version"]}
    ours = [one["version"] for one in systems.values() if one["kind"] == "ours"]
    return "Versions: " + ", ".join(sorted(found)) + (f"; ours is {ours[0]}" if ours else "") + "."


def table(rows: Sequence[Row], systems: Mapping[str, Summary]) -> list[str]:
    """Return the lines of a table."""
    ours = [one for one in systems.values() if one["kind"] == "ours"]
    peers = [one for one in systems.values() if one["kind"] == "peer"]
    copies = [one for one in systems.values() if one["kind"] == "copy"]
    others = [one["title"] for one in peers] + [f"{one['title']} †" for one in copies]
    head = ["", "ours", "ours ÷ best peer", "goal", *others]
    lines = [line(head), line(["---"] * len(head))]
    for row in rows:
        found = [row.of(one) for one in (*peers, *copies)]
        mine = row.of(ours[0]) if ours else None
        best = best_of([row.of(one) for one in peers], low=row.low)
        if mine is None and best is None:
            continue
        cells = [
            f"**{number(value)}**" if value is not None and value == best else number(value)
            for value in found
        ]
        ratio = NONE if mine is None or not best or row.ours_only else f"{mine / best:.2f} {TIMES}"
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
