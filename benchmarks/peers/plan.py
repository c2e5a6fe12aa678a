"""How often each thing is done: enough for medians, and few enough for a run of a quarter of an hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PLANS", "RTT_S", "WAN", "Plan"]

RTT_S = 0.020
WAN = {"delay_s": RTT_S / 2, "bytes_per_s": 100e6 / 8}
"""The slow link: 20 ms there and back, 100 Mbit/s in either direction."""


@dataclass(frozen=True)
class Plan:
    """Numbers of repeats.

    Parameters
    ----------
    rounds : int
        In each of them every system has a turn, in an order that is shuffled.
    turn : mapping of str to int
        Reads of each kind in a turn; one more before them is not counted.
    whole_every : int
        In every so many-th round the whole is read too.
    wire : mapping of str to int
        Reads whose bytes are counted.
    crowd_processes, crowd_threads : int
        How many read at once.
    crowd_rounds : int
    crowd_s : float
        How long they do in each round, in seconds.
    far : mapping of str to int
        Reads through the slow link. The whole is left out: it takes its size through the bandwidth.
    """

    rounds: int
    turn: Mapping[str, int]
    crowd_s: float
    crowd_rounds: int = 3
    whole_every: int = 4
    crowd_processes: int = 4
    crowd_threads: int = 4
    wire: Mapping[str, int] = field(
        default_factory=lambda: (
            dict.fromkeys(("plane-x", "plane-y", "plane-z", "cube"), 2)
            | {"element": 20, "ten": 20, "whole": 1}
        )
    )
    far: Mapping[str, int] = field(
        default_factory=lambda: (
            dict.fromkeys(("plane-x", "plane-y", "plane-z", "cube"), 2) | {"element": 5, "ten": 5}
        )
    )


PLANS = {
    "full": Plan(
        rounds=12,
        turn={"element": 30, "ten": 30, "plane-x": 3, "plane-y": 2, "plane-z": 2, "cube": 1},
        crowd_s=3.0,
    ),
    "small": Plan(
        rounds=3,
        turn={"element": 10, "ten": 10, "plane-x": 2, "plane-y": 2, "plane-z": 2, "cube": 1},
        crowd_s=0.5,
        crowd_rounds=2,
        whole_every=3,
        far=dict.fromkeys(("element", "ten", "plane-x", "plane-y", "plane-z", "cube"), 1),
    ),
}
