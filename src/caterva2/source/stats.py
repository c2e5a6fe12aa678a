"""What was asked of other hosts, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PartStats", "UpstreamStats"]

Counted = Literal[
    "requests", "bytes", "extents", "rejected", "retries", "errors", "hangs", "in_flight", "waiting"
]


@dataclass(slots=True)
class UpstreamStats:
    """What was asked of other hosts, for one or several sources.

    Attributes
    ----------
    requests : int
        Answers that began to arrive.
    bytes : int
        Bytes of body of all answers, metadata and errors included.
    extents : int
        Extents that arrived and were right.
    rejected : int
        Extents whose bytes did not match their digest.
    retries : int
        Requests that were repeated because the answer was not what was asked for.
    errors : int
        Requests that failed for good, because the other side could not be reached or answered nonsense.
    hangs : int
        Times that a host was found to hang: it sent nothing and did not answer a probe.
    in_flight, waiting : int
        Requests under way now, and those that wait for one of these to end.
    """

    requests: int = 0
    bytes: int = 0
    extents: int = 0
    rejected: int = 0
    retries: int = 0
    errors: int = 0
    hangs: int = 0
    in_flight: int = 0
    waiting: int = 0

    def count(self, name: Counted, by: int = 1) -> None:
        """Add to one of the numbers."""
        setattr(self, name, getattr(self, name) + by)


class PartStats(UpstreamStats):
    """What was asked of one source of several: it is part of a whole.

    Parameters
    ----------
    whole : UpstreamStats
        Is added to as well.
    """

    def __init__(self, whole: UpstreamStats) -> None:
        super().__init__()
        self._whole = whole

    def count(self, name: Counted, by: int = 1) -> None:
        """Add to one of the numbers, here and of the whole."""
        super().count(name, by)
        self._whole.count(name, by)
