"""What is read together of a large selection, and decoded together."""

from __future__ import annotations

from dataclasses import dataclass, field

from caterva2.model.extents import Extent
from caterva2.model.page import Page
from caterva2.source.plan import Piece

__all__ = ["Batch"]

BATCH_BYTES = 16 * 1024 * 1024
"""A batch reads about this much, in bytes; two are in memory at a time."""

BATCH_DECODED_BYTES = 128 * 1024 * 1024
"""A batch ends here as well: what is decoded to much more than was read."""

BATCH_PIECES = 1024
"""And here: planning and decoding a piece take time, however small it is."""


@dataclass(slots=True)
class Batch:
    """Pieces that are read together; extents that several of them need are read once.

    Attributes
    ----------
    last : bool
        No other comes behind it.
    work : list of (Piece, Page, list of int)
        Each piece with its page, and which of `extents` it needs.
    extents : list of Extent
    places : dict
        Where in `extents` an extent number is.
    nbytes, decoded : int
        What its extents, and its blocks decoded, take in bytes.
    """

    last: bool = False
    work: list[tuple[Piece, Page, list[int]]] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    nbytes: int = 0
    decoded: int = 0

    def add(self, piece: Piece, page: Page, extents: list[Extent], decoded: int) -> None:
        """Add a piece that needs some extents, and whose blocks take `decoded` bytes."""
        numbers = []
        for extent in extents:
            place = self.places.setdefault(extent.number, len(self.extents))
            if place == len(self.extents):
                self.extents.append(extent)
                self.nbytes += extent.size
            numbers.append(place)
        self.work.append((piece, page, numbers))
        self.decoded += decoded

    @property
    def full(self) -> bool:
        """Whether the next piece goes to another batch."""
        return (
            self.nbytes >= BATCH_BYTES
            or self.decoded >= BATCH_DECODED_BYTES
            or len(self.work) >= BATCH_PIECES
        )
