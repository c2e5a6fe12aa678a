"""How much a dataset is worth keeping, for whoever must make room."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from caterva2.model.path import DatasetPath
from caterva2.model.pattern import matches
from caterva2.subscriber.follow import Follower
from caterva2.subscriber.pins import Pins

__all__ = ["Rank", "ranking"]


class Rank(IntEnum):
    """What is kept longer has a higher one."""

    OTHER = 0
    FOLLOWED = 1
    PINNED = 2


def ranking(pins: Pins, follower: Follower) -> Callable[[DatasetPath], Rank]:
    """Return a function that says the rank of a dataset, as things are when it is called."""

    def rank(path: DatasetPath) -> Rank:
        if path in pins:
            return Rank.PINNED
        followed = any(matches(pattern, str(path)) for pattern in follower.patterns)
        return Rank.FOLLOWED if followed else Rank.OTHER

    return rank
