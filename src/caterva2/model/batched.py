"""Things that have a size, in batches: so much is fetched, read or sent at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["batched"]


class Sized(Protocol):
    """What takes some bytes."""

    @property
    def size(self) -> int:
        """How many."""
        ...


S = TypeVar("S", bound=Sized)


def batched(things: Iterable[S], batch_bytes: int) -> Iterator[list[S]]:
    """Yield things in batches that take `batch_bytes` or a little more; the last one may take less."""
    batch: list[S] = []
    nbytes = 0
    for thing in things:
        batch.append(thing)
        nbytes += thing.size
        if nbytes >= batch_bytes:
            yield batch
            batch, nbytes = [], 0
    if batch:
        yield batch
