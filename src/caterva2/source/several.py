"""A root's origin and further sources as one `Source`: each request goes to whoever costs least.

What is current, and the digests that all data is checked against, are the origin's while it can be reached.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from operator import itemgetter
from typing import TypeVar

from caterva2.errors import Caterva2Error, Unavailable
from caterva2.model.extents import Extent
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.path import DatasetPath
from caterva2.source.hedging import AllFailed, Budget, first_answer
from caterva2.source.http import HttpSource, together
from caterva2.source.standing import SourcesStats, Standing

__all__ = ["SeveralSources", "in_order"]

NOISE_S = 0.002
"""Costs that differ by less, in seconds, are alike: then the origin is spared."""

T = TypeVar("T")


def in_order(candidates: Sequence[Standing], path: str, etag: str) -> list[Standing]:
    """Return the sources to ask for a version, the best first.

    Left out are further sources that sent what is wrong a moment ago and, while the origin is well, those
    that did not have all that was wanted of that version. Who failed, or hangs, is last.
    """
    spare = any(one.kind == "origin" and not one.last for one in candidates)
    ranked = []
    for one in candidates:
        lacks = one.lacks(path, etag)
        if one.state != "quarantined" and not (spare and lacks):
            cost_s = one.cost_s + (NOISE_S if one.kind == "origin" else 0.0)
            ranked.append(((lacks or one.last, cost_s), one))
    return [one for _, one in sorted(ranked, key=itemgetter(0))]


class SeveralSources:
    """A `caterva2.source.protocol.Source` over several hosts that have the same root.

    Parameters
    ----------
    origin : Standing or None
        None if it is known to be gone.
    further : sequence of Standing
    budget : Budget
        Shared by all that ask.
    stats : SourcesStats
        Is added to.
    """

    def __init__(
        self, origin: Standing | None, further: Sequence[Standing], budget: Budget, stats: SourcesStats
    ) -> None:
        self._origin = origin
        self._further = further
        self._budget = budget
        self._stats = stats

    # -- manifests: the origin's -----------------------------------------------------------------

    async def head(self, path: DatasetPath, etag: str | None = None) -> Head:
        """Return the head of a version; see `Source.head`.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized
        """
        return await self._believed(path, etag or "", lambda source: source.head(path, etag))

    async def pages(
        self, head: Head, numbers: Sequence[int], known: Mapping[int, Page] | None = None
    ) -> list[Page]:
        """Return pages of a version's manifest; see `Source.pages`.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized, IndexError
        """
        return await self._believed(head.path, head.etag, lambda source: source.pages(head, numbers, known))

    async def _believed(self, path: DatasetPath, etag: str, ask: Callable[[HttpSource], Awaitable[T]]) -> T:
        """Ask the origin; only if it cannot be reached, the others."""
        errors: list[tuple[Standing, Caterva2Error]] = []
        further = in_order(self._further, str(path), etag)
        for standing in further if self._origin is None else [self._origin, *further]:
            try:
                answer = await ask(standing.source)
            except Caterva2Error as error:
                if standing is self._origin and not isinstance(error, Unavailable):
                    raise
                standing.failed(error, str(path), etag)
                errors.append((standing, error))
            else:
                standing.answered(str(path), etag)
                return answer
        raise self._verdict(path, errors)

    # -- data: whoever costs least ---------------------------------------------------------------

    async def read(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of extents, each checked against its digest; see `Source.read`.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized, IntegrityError
        """
        wanted = {extent.number: extent for extent in extents}
        planner = (self._origin or self._further[0]).source
        portions = planner.portions(list(wanted.values()))
        got = await together(self._portion(head, portion) for portion in portions)
        pieces = {
            extent.number: piece
            for portion, found in zip(portions, got, strict=True)
            for extent, piece in zip(portion, found, strict=True)
        }
        return [pieces[extent.number] for extent in extents]

    async def _portion(self, head: Head, extents: Sequence[Extent]) -> list[bytes]:
        everybody = [*self._further] if self._origin is None else [self._origin, *self._further]
        candidates = in_order(everybody, str(head.path), head.etag)
        try:
            return await first_answer(candidates, head, extents, self._budget, self._stats)
        except AllFailed as failed:
            raise self._verdict(head.path, failed.errors) from failed

    def _verdict(self, path: DatasetPath, errors: Sequence[tuple[Standing, Caterva2Error]]) -> Caterva2Error:
        """Return what to raise when nobody gave an answer: what the origin said, if it was asked."""
        of_origin = next((error for standing, error in errors if standing is self._origin), None)
        if of_origin is not None:
            return of_origin
        said = "; ".join(str(error) for _, error in errors) or "none of them is to be asked now"
        return Unavailable(
            f"root {path.root!r} is offline, and of its {len(self._further)} further sources none gave "
            f"what is wanted of {path}: {said}"
        )

    async def prepare(self, head: Head, groups: AsyncGenerator[Sequence[Extent]]) -> None:
        """Do nothing: nothing is kept here."""

    async def stream(self, head: Head, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield bytes of a version from the origin alone: pieces cannot be checked; see `Source.stream`.

        Raises
        ------
        NotFound, Changed, Unavailable, Unauthorized
        """
        if self._origin is None:
            raise self._verdict(head.path, [])
        async for piece in self._origin.source.stream(head, start, stop):
            yield piece
