"""Where extents are in a file: many byte ranges at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Spans", "joined"]

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spans:
    """Extents of a version, by number.

    Attributes
    ----------
    numbers : ndarray of int64, shape (n,)
        Ascending.
    offsets, sizes : ndarray of int64, shape (n,)
        In bytes.
    """

    numbers: _Ints
    offsets: _Ints
    sizes: _Ints

    @property
    def stops(self) -> _Ints:
        """One past the last byte of each."""
        return self.offsets + self.sizes

    def around(self, going: npt.NDArray[np.bool_], staying: npt.NDArray[np.bool_]) -> tuple[_Ints, _Ints]:
        """Return the byte ranges that no extent needs any more once some are gone.

        They reach from one extent that stays to the next, over those that were gone before: what is left
        of a block that two of them shared is in there. Nothing is said of bytes of which no extent is given.

        Parameters
        ----------
        going, staying : ndarray of bool, shape (n,)

        Returns
        -------
        starts, stops : ndarray of int64
            Ascending, disjoint; each has bytes of an extent that is going.
        """
        stops = self.stops
        all_starts, all_stops = joined(self.offsets, stops)
        kept_starts, kept_stops = joined(self.offsets[staying], stops[staying])
        gone_starts, gone_stops = joined(self.offsets[going], stops[going])
        # what is kept lies inside of all, so beginnings and ends of what is free alternate
        free_starts = np.sort(np.concatenate([all_starts, kept_stops]))
        free_stops = np.sort(np.concatenate([kept_starts, all_stops]))
        after = np.searchsorted(gone_stops, free_starts, side="right")
        reached = np.append(gone_starts, np.iinfo(np.int64).max)[after]
        wanted = (free_starts < free_stops) & (reached < free_stops)
        return free_starts[wanted], free_stops[wanted]


def joined(starts: _Ints, stops: _Ints) -> tuple[_Ints, _Ints]:
    """Join byte ranges where they touch or overlap.

    Parameters
    ----------
    starts, stops : ndarray of int64, shape (n,)
        In any order.

    Returns
    -------
    starts, stops : ndarray of int64
        Ascending, with a gap between each and the next.
    """
    if not len(starts):
        return starts, stops
    order = np.argsort(starts, kind="stable")
    starts, reached = starts[order], np.maximum.accumulate(stops[order])
    breaks = np.flatnonzero(starts[1:] > reached[:-1])
    return starts[np.concatenate([[0], breaks + 1])], reached[np.concatenate([breaks, [len(starts) - 1]])]
