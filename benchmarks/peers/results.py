"""What was measured of a system, as it grows, and as it is written."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers.case import Case
from benchmarks.peers.system import System

__all__ = ["Cost", "Result", "Samples", "percentile"]


@dataclass
class Samples:
    """Reads of one kind."""

    seconds: list[float] = field(default_factory=list)
    client_cpu_s: float = 0.0
    server_cpu_s: float = 0.0

    def summary(self, nbytes: int) -> dict[str, float]:
        """Return medians, percentiles and rates."""
        median = statistics.median(self.seconds)
        return {
            "reads": len(self.seconds),
            "p50_ms": median * 1e3,
            "p95_ms": percentile(self.seconds, 0.95) * 1e3,
            "mb_per_s": nbytes / median / 1e6,
            "server_cpu_ms": self.server_cpu_s / len(self.seconds) * 1e3,
            "client_cpu_ms": self.client_cpu_s / len(self.seconds) * 1e3,
        }


@dataclass
class Cost:
    """Reads through a link that counts, the first of a place and a second one of the same."""

    seconds: list[float] = field(default_factory=list)
    wire_bytes: list[int] = field(default_factory=list)

    def summary(self, nbytes: int) -> dict[str, float]:
        """Return medians."""
        median = statistics.median(self.seconds)
        return {
            "reads": len(self.seconds),
            "p50_ms": median * 1e3,
            "mb_per_s": nbytes / median / 1e6,
            "wire_bytes": statistics.median(self.wire_bytes),
        }


@dataclass
class Result:
    """All of one system; ``not_run`` says why there is not more."""

    system: System
    version: str | None = None
    not_run: str | None = None
    near: dict[str, Samples] = field(default_factory=dict)
    wire: dict[str, Cost] = field(default_factory=dict)
    far: dict[str, Cost] = field(default_factory=dict)
    again: dict[str, Cost] = field(default_factory=dict)
    crowd: Samples = field(default_factory=Samples)
    crowd_s: float = 0.0
    more: dict[str, float] = field(default_factory=dict)

    def summary(self, case: Case) -> dict[str, Any]:
        """Return what is written as JSON, and what the tables are made from."""
        found: dict[str, Any] = {
            "title": self.system.title,
            "kind": self.system.kind,
            "package": self.system.package,
            "version": self.version,
            "not_run": self.not_run,
            **self.more,
        }
        for name in ("near", "wire", "far", "again"):
            kinds = getattr(self, name)
            found[name] = {
                kind: kinds[kind].summary(case.nbytes(kind)) for kind in kinds if kinds[kind].seconds
            }
        if self.crowd.seconds:
            found["crowd"] = self.crowd.summary(case.nbytes("ten")) | {
                "per_s": len(self.crowd.seconds) / self.crowd_s,
                "p99_ms": percentile(self.crowd.seconds, 0.99) * 1e3,
            }
        return found


def percentile(values: list[float], part: float) -> float:
    """Return the value below which a part of them is."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
